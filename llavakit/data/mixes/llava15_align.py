"""The 558K pairs that LLaVA-1.5 aligns on."""

from __future__ import annotations

from llavakit.data.blend import Blend, Ingredient

MIX = Blend(name="llava15-align", sources={"blip_558k": Ingredient(records=558_128)})
