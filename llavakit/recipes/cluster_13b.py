"""LLaVA-1.5-13B by the second description of its training, for 32 A100-80G: large batches, decay, three epochs,
augmented pictures.

As described, the warm-up has 1000 steps. Of the published data, in batches of 2048, stage 1 is 273 steps and stage 2
is 975: the rate still rises when they end, at 27 % and 98 % of its peak, and the cosine never begins. The description
must have had more data; on this data training refuses such a warm-up, and ``stages.align.warmup=0.03`` and the same
for ``tune`` is the published share.
"""

from __future__ import annotations

from typing import Any

from llavakit.recipes.llava15_13b import recipe as llava15_13b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    changes: dict[str, Any] = {
        "betas": (0.9, 0.95),
        "weight_decay": 0.1,
        "warmup": 1000.0,
        "clip": 1.0,
        "batch_size": 2048,
        "augment": True,
    }
    both = {f"stages.{stage}.{key}": value for stage in ("align", "tune") for key, value in changes.items()}
    return llava15_13b().evolve(
        {
            "name": "cluster-13b",
            **both,
            "stages.align.train": {"connector": 2e-5},
            "stages.tune.train": {"connector": 1e-5, "language_model": 1e-5},
            "stages.tune.epochs": 3.0,
        }
    )
