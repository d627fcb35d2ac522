"""LLaVA-1.5-7B as published: CLIP ViT-L/14-336, a two-layer MLP, Vicuna-7B v1.5; 558K captions, then the 665K mix.

Data files as haotian-liu/LLaVA's README lays them out, under ``playground/data``.
"""

from __future__ import annotations

from llavakit.data.lengths import Lengths
from llavakit.data.mixture import SourceSpec
from llavakit.model.build import ModelSpec
from llavakit.train.stage import Recipe, Stage

DATA = "playground/data"

CAPTIONS = Lengths(text=14, spread=0.35, supervised=0.93)
# 5.3e8 tokens in all, 576 of them in each of 624,610 pictures; 40,688 talks of ShareGPT have none and are longest.
MIX = Lengths(text=256, spread=0.8, supervised=0.35, pictures=0.939)


def recipe() -> Recipe:
    return Recipe(
        name="llava15-7b",
        model=ModelSpec(vision="openai/clip-vit-large-patch14-336", language="lmsys/vicuna-7b-v1.5"),
        stages={
            "align": Stage(
                data={
                    "blip_558k": SourceSpec(
                        path=f"{DATA}/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json",
                        images=f"{DATA}/LLaVA-Pretrain/images",
                        records=558_128,
                        lengths=CAPTIONS,
                    )
                },
                template="plain",
                train={"connector": 1e-3},
                batch_size=256,
                image="crop",
                image_first=False,
            ),
            "tune": Stage(
                data={
                    "mix_665k": SourceSpec(
                        path=f"{DATA}/llava_v1_5_mix665k.json", images=DATA, records=665_298, lengths=MIX
                    ),
                },
                template="vicuna_v1",
                train={"connector": 2e-5, "language_model": 2e-5},
                batch_size=128,
            ),
        },
    )
