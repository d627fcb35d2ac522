"""The whole path in miniature: backbones from scratch, alignment, instruction tuning, on a rendered world.

LLaVA-1.5's recipe at a hundred-thousandth of its size, so two things differ: rates are higher, since little is
pretrained here, and the vision tower trains along in stage 2, since it is a minute old.
"""

from __future__ import annotations

from pathlib import Path

from llavakit.data.mixture import SourceSpec
from llavakit.train.backbones_spec import Backbones, Language, Tower
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
            texts=(f"{world}/corpus.txt",),
            tower=Tower(width=128, layers=3, steps=500, batch_size=64),
            language=Language(width=128, layers=3, steps=450, lr=2e-3),
            seed=seed,
        ),
        stages={
            "align": Stage(
                data={"captions": captions.evolve(weight=0.2)},
                template="plain",
                train={"connector": 2e-3},
                batch_size=32,
                image="crop",
                image_first=False,
            ),
            "tune": Stage(
                data=mix,
                template="vicuna_v1",
                train={"connector": 1e-3, "language_model": 1e-3, "vision_tower": 5e-4},
                optimiser="muon",
                batch_size=24,
                betas=(0.9, 0.98),
            ),
        },
    )


# How much of each ingredient's file an epoch takes. Detailed descriptions weigh most: no other text names everything
# that a picture shows.
WEIGHTS = {
    "detail": 1.0,
    "vqa": 0.8,
    "ocr": 0.6,
    "conversation": 0.6,
    "region": 0.5,
    "reasoning": 0.4,
    "text_only": 0.4,
    "textcaps": 0.4,
    "choice": 0.25,
}
