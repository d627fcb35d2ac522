"""LLaVA-1.6-7B: any-resolution pictures in stage 2, and all three parts train, the tower at a tenth of the rate.

Its own 760K mix was never published whole; the data here is LLaVA-1.5's until you name yours
(``stages.tune.data.mix_665k.path=...``).
"""

from __future__ import annotations

from llavakit.recipes.llava15_7b import recipe as llava15_7b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    return llava15_7b().evolve(
        {
            "name": "llava16-7b",
            "stages.tune.image": {"grids": "llava16", "global_view": "squash"},
            "stages.tune.train": {"connector": 2e-5, "language_model": 2e-5, "vision_tower": 2e-6},
            "max_length": 4096,
        }
    )
