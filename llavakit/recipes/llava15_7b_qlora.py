"""LLaVA-1.5-7B with QLoRA in stage 2: as with LoRA, the frozen language model in 4-bit NF4."""

from __future__ import annotations

from llavakit.recipes.llava15_7b_lora import recipe as llava15_7b_lora
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    return llava15_7b_lora().evolve({"name": "llava15-7b-qlora", "stages.tune.lora.base": "nf4"})
