"""The whole path, smaller still: the demo on a handful of pictures, and the photos recipe on real photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavakit.demo import run as demo_run
from llavakit.engine.load import load
from llavakit.eval.run import BENCHMARKS, evaluate
from llavakit.recipes import resolve
from llavakit.recipes.demo import recipe as demo_recipe
from llavakit.train.run import train
from llavakit.train.stage import Recipe

SHORT: dict[str, Any] = {"backbones.tower.steps": 4, "backbones.tower.batch_size": 16, "backbones.language.steps": 6}


def test_the_demo_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(world: str, seed: int) -> Recipe:
        recipe = demo_recipe(world, seed)
        whole = {f"stages.tune.data.{name}.weight": 1.0 for name in recipe.stages["tune"].data}
        return recipe.evolve(SHORT | whole)

    for name, value in {"TRAIN": 40, "TEST": 30, "CONVERSATIONS": 40, "ASKED": 4, "demo_recipe": small}.items():
        monkeypatch.setattr(demo_run, name, value)
    out = tmp_path / "demo"
    results = demo_run.demo(out, seed=3)
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {"overall", "blank_image", "before_tuning", "seconds"} <= results.keys()
    assert len(results["ingredients"]) == 10 and len(results["benchmarks"]) == 5
    assert (out / "report.html").stat().st_size > 50_000 and (out / "loss.png").is_file()
    assert "overall" in demo_run.summary(results)
    assert isinstance(load(out / "model").ask(out / "world/images/test/00000.jpg", "What do you see?"), str)


def test_the_photos_recipe_on_real_photographs(shared: Path, tmp_path: Path) -> None:
    coco, flickr = shared / "coco_mini", shared / "flickr_1k"
    captions = {"path": str(flickr / "llava_align_train.json"), "images": str(flickr / "images"), "weight": 0.03}
    instruct = {"path": str(coco / "llava_instruct_train.json"), "images": str(coco / "train"), "weight": 1.0}
    recipe = resolve("examples/photos.yaml").evolve(
        SHORT
        | {
            "backbones.captions": captions | {"weight": 1.0},
            "stages.align.data": {"captions": captions},
            "stages.tune.data": {"instruct": instruct, "captions": captions},
        }
    )
    model = train(recipe, tmp_path / "photos")
    losses = [json.loads(line) for line in (tmp_path / "photos" / "metrics.jsonl").read_text().splitlines()]
    tune = [record["loss"] for record in losses if record["stage"] == "tune"]
    assert sum(tune[-3:]) < sum(tune[:3])
    assistant = load(model)
    questions = BENCHMARKS["records"].load(coco / "llava_instruct_val.json", coco / "val")[:20]
    result = evaluate(BENCHMARKS["records"], questions, assistant.answer)
    assert result.count == 20
