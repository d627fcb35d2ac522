"""ScienceQA for fine-tuning, as LLaVA (v1) did."""

from __future__ import annotations

from llavakit.data.blend import Blend, Ingredient

MIX = Blend(name="scienceqa", sources={"scienceqa": Ingredient(records=12_726)})
