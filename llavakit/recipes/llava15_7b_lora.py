"""LLaVA-1.5-7B with LoRA in stage 2 (``finetune_lora.sh``): rank 128, alpha 256, the connector whole at its own rate.

The adapters are merged at the end: what is saved is a native checkpoint like any other.
"""

from __future__ import annotations

from llavakit.recipes.llava15_7b import recipe as llava15_7b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    return llava15_7b().evolve(
        {
            "name": "llava15-7b-lora",
            "stages.tune.train": {"connector": 2e-5, "language_model": 2e-4},
            "stages.tune.lora": {"rank": 128, "alpha": 256},
        }
    )
