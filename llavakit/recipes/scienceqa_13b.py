"""LLaVA-13B (v1) for ScienceQA (``finetune_sqa.sh``): twelve epochs from the aligned model, question, context and
choices in (QCM), lecture, explanation and answer out (LEA).
"""

from __future__ import annotations

from llavakit.data.lengths import Lengths
from llavakit.data.mixture import SourceSpec
from llavakit.recipes.llava15_7b import DATA
from llavakit.recipes.llava_v1_7b import recipe as llava_v1_7b
from llavakit.train.stage import Recipe


def recipe() -> Recipe:
    questions = SourceSpec(
        path=f"{DATA}/ScienceQA/llava_train_QCM-LEA.json",
        images=f"{DATA}/ScienceQA/images/train",
        records=12_726,
        # 6,218 of the questions have a picture.
        lengths=Lengths(text=330, spread=0.4, supervised=0.5, pictures=0.489),
    )
    return llava_v1_7b().evolve(
        {
            "name": "scienceqa-13b",
            "model.language": "lmsys/vicuna-13b-v1.3",
            "stages.tune.data": {"scienceqa": questions},
            "stages.tune.image_first": False,
            "stages.tune.batch_size": 128,
            "stages.tune.epochs": 12.0,
        }
    )
