"""The 100K captions that GPT-4V wrote for ShareGPT4V (arXiv:2311.12793)."""

from __future__ import annotations

from llavakit.data.blend import Blend, Ingredient

MIX = Blend(name="sharegpt4v", sources={"sharegpt4v": Ingredient()})
