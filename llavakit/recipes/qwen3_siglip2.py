"""Today's parts, LLaVA-1.5's recipe: SigLIP 2 at 384 pixels and Qwen3-8B, which speaks ChatML.

Qwen3 has no BOS, and its answers end in ``<|im_end|>``, its EOS. A picture takes 729 tokens.
"""

from __future__ import annotations

from llavakit.recipes.llava15_7b import recipe as llava15_7b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    return llava15_7b().evolve(
        {
            "name": "qwen3-siglip2",
            "model.vision": "google/siglip2-so400m-patch14-384",
            "model.language": "Qwen/Qwen3-8B",
            "stages.tune.template": "chatml",
            "max_length": 4096,
        }
    )
