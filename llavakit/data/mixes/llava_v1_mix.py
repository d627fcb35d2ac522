"""The 158K instructions of LLaVA (v1) (arXiv:2304.08485)."""

from __future__ import annotations

from llavakit.data.blend import Blend, Ingredient

MIX = Blend(name="llava-v1-mix", sources={"llava_instruct": Ingredient(records=157_712)})
