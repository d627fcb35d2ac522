"""A recipe trains on what a teacher wrote: the 158K in miniature, from the world's captions to a lower loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("openai")

from llavakit.cli import main
from llavakit.recipes import resolve
from llavakit.world.build import build


def test_a_recipe_trains_on_it(backbones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, out = tmp_path / "world", tmp_path / "instruct.json"
    build(world, 0, 24, 8, 48, 1, conversations=1, questions_per_ingredient=1, benchmark_questions=1)
    words = ["--captions", str(world / "captions.jsonl"), "--endpoint", "rules", "--out", str(out)]
    assert main(["teach", "conversation,detail,reasoning", *words]) == 0
    stage = {
        "data": {"instruct": {"path": str(out), "images": str(world)}},
        "template": "vicuna_v1",
        "train": {"connector": 1e-2, "language_model": 1e-2},
        "batch_size": 8,
        "epochs": 2,
    }
    model = {"vision": str(backbones / "clip"), "language": str(backbones / "language")}
    recipe = {"name": "taught", "model": model, "stages": {"tune": stage}, "max_length": 512, "workers": 0}
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "precision": "float32"}))
    assert main(["train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    (log,) = (tmp_path / "run").rglob("*.jsonl")
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert len(losses) == 18 and sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_the_example_is_a_recipe_of_both_stages() -> None:
    recipe = resolve(str(Path(__file__).parents[2] / "examples" / "taught.yaml"))
    assert list(recipe.stages) == ["align", "tune"] and recipe.stages["tune"].data["taught"].path == "runs/taught.json"
