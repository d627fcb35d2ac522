"""The whole path in miniature: backbones from scratch, alignment, instruction tuning, on a rendered world.

LLaVA-1.5's two stages, with three differences: rates are higher in stage 2, since little is pretrained here, and lower
in stage 1, since the connector starts from words; stage 2 uses Muon, not AdamW, and sees some of stage 1's captions
again.
"""

from __future__ import annotations

from pathlib import Path

from llavakit.data.mixture import SourceSpec
from llavakit.train.backbones_spec import Backbones, Language, Lesson, Tower
from llavakit.train.stage import Recipe, Stage
from llavakit.world.ask.table import INGREDIENTS

WORLD = "runs/demo/world"


def recipe(world: str = WORLD, seed: int = 0) -> Recipe:
    captions = SourceSpec(path=f"{world}/align.json", images=world)
    mix = {
        name: SourceSpec(path=str(Path(world, "tune", f"{name}.json")), images=world, weight=WEIGHTS[name])
        for name in INGREDIENTS
    }
    return Recipe(
        name="demo",
        seed=seed,
        max_length=1024,
        workers=0,
        snapshot_every=200,
        backbones=Backbones(
            captions=captions,
            regions=SourceSpec(path=f"{world}/regions.json", images=world),
            conversations=tuple(
                Lesson(data=SourceSpec(path=f"{world}/words/{name}.json"), begins=begins, share=share)
                for name, begins, share in LESSONS
            ),
            told=SourceSpec(path=f"{world}/words/regions.json"),
            tower=Tower(steps=620),
            language=Language(steps=330, batch_tokens=4000),
            seed=seed,
        ),
        stages={
            "align": Stage(
                data={"captions": captions.evolve(weight=0.1)},
                template="plain",
                train={"connector": 2e-5},  # it starts from words; a higher rate only leads it away
                batch_size=32,
                image="crop",
                image_first=False,
            ),
            "tune": Stage(
                data=mix | {"caption": captions.evolve(weight=0.08)},  # or briefness is forgotten
                template="vicuna_v1",
                train={"connector": 2e-4, "language_model": 2e-4},  # at 5e-4 it forgets what is not there
                optimiser="muon",
                batch_size=20,
                betas=(0.9, 0.98),
            ),
        },
    )


# Of the language model: name, the part of its steps after which it begins, its share.
LESSONS = (("lookup", 0.0, 1.5), ("talk", 0.0, 0.7), ("lists", 0.4, 2.0), ("chat", 0.4, 2.5))

# How much of each ingredient's file an epoch takes.
WEIGHTS = {
    "vqa": 0.08,
    "conversation": 0.09,
    "detail": 0.12,
    "textcaps": 0.14,
    "reasoning": 0.09,
    "text_only": 0.07,
    "ocr": 0.05,
    "region": 0.04,
    "choice": 0.03,
}
