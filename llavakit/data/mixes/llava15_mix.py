"""The 665K mix of LLaVA-1.5 (arXiv:2310.03744), with its published counts."""

from __future__ import annotations

from llavakit.data.blend import Blend, Ingredient

MIX = Blend(
    name="llava15-mix",
    sources={
        "llava_instruct": Ingredient(records=157_712),
        "sharegpt": Ingredient(records=40_688),
        "vqav2": Ingredient(records=82_783),
        "gqa": Ingredient(records=72_140),
        "okvqa": Ingredient(records=8_998),
        "ocr_vqa": Ingredient(records=80_000),
        "aokvqa": Ingredient(records=66_160),
        "textcaps": Ingredient(records=21_953),
        "refcoco": Ingredient(records=48_447),
        "visual_genome": Ingredient(records=86_417),
    },
)
