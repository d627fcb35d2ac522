"""The 595K pairs that LLaVA (v1) aligns on (arXiv:2304.08485)."""

from __future__ import annotations

from llavakit.data.blend import Blend, Ingredient

MIX = Blend(name="llava-v1-align", sources={"cc3m_595k": Ingredient(records=595_375)})
