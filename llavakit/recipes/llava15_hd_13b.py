"""LLaVA-1.5-HD-13B: in stage 2 pictures are up to six tiles of 224 pixels and a padded global view.

No pre-training of its own: stage 1 is LLaVA-1.5's, at the tower's 224 pixels. The context is Vicuna's whole 4096:
a picture takes up to 1888 tokens, and the questions of the mix would be cut at 2048.
"""

from __future__ import annotations

from llavakit.recipes.llava15_13b import recipe as llava15_13b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    return llava15_13b().evolve(
        {
            "name": "llava15-hd-13b",
            "model.vision": "openai/clip-vit-large-patch14",
            "stages.tune.image": {"grids": "hd", "global_view": "pad"},
            "max_length": 4096,
        }
    )
