"""LLaVA-1.5-13B as published: the 7B recipe on Vicuna-13B v1.5."""

from __future__ import annotations

from llavakit.recipes.llava15_7b import recipe as llava15_7b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    return llava15_7b().evolve({"name": "llava15-13b", "model.language": "lmsys/vicuna-13b-v1.5"})
