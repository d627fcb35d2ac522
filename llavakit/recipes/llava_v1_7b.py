"""LLaVA (v1, arXiv:2304.08485) on Vicuna-7B v1.3: CLIP ViT-L/14 at 224 pixels, one matrix as connector; 595K filtered
CC3M captions, then three epochs of 158K instructions, the picture before or after the first question at random.

Batches are the paper's, 128 and 32. The public scripts say 128 for both: ``stages.tune.batch_size=128``.
"""

from __future__ import annotations

from llavakit.data.lengths import Lengths
from llavakit.data.mixture import SourceSpec
from llavakit.recipes.llava15_7b import CAPTIONS, DATA
from llavakit.recipes.llava15_7b import recipe as llava15_7b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    captions = SourceSpec(
        path=f"{DATA}/LLaVA-CC3M-Pretrain-595K/chat.json",
        images=f"{DATA}/LLaVA-CC3M-Pretrain-595K/images",
        records=595_375,
        lengths=CAPTIONS,
    )
    instruct = SourceSpec(
        path=f"{DATA}/LLaVA-Instruct-150K/llava_instruct_158k.json",
        images=f"{DATA}/coco/train2017",
        records=157_712,
        lengths=Lengths(text=232, spread=0.4, supervised=0.6),
    )
    return llava15_7b().evolve(
        {
            "name": "llava-v1-7b",
            "model.vision": "openai/clip-vit-large-patch14",
            "model.language": "lmsys/vicuna-7b-v1.3",
            "model.connector": "linear",
            "stages.align.data": {"cc3m_595k": captions},
            "stages.align.train.connector": 2e-3,
            "stages.align.batch_size": 128,
            "stages.tune.data": {"instruct_158k": instruct},
            "stages.tune.image": "crop",
            "stages.tune.image_first": "random",
            "stages.tune.batch_size": 32,
            "stages.tune.epochs": 3.0,
        }
    )
