"""A whole run: both stages learn, only what is named moves, and an output directory is never another run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.model.build import build
from llavakit.model.checkpoint import native_state
from llavakit.train.run import train
from llavakit.train.stage import Recipe


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_loss_falls_in_both_stages(finished: Path) -> None:
    for stage in ("align", "tune"):
        losses = [record["loss"] for record in lines(finished) if record["stage"] == stage]
        assert losses[-1] < 0.8 * losses[0], (stage, losses)


def test_only_the_named_parts_move(finished: Path, recipe: Recipe) -> None:
    before = native_state(build(recipe.model, recipe.seed)[0])
    aligned = load_file(finished / "stages" / "align" / "model.safetensors")
    tuned = load_file(finished / "stages" / "tune" / "model.safetensors")
    assert before.keys() == aligned.keys() == tuned.keys()

    def moved(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}

    assert moved(before, aligned) == {"multi_modal_projector"}
    assert moved(aligned, tuned) == {"multi_modal_projector", "language_model"}


def test_what_a_run_leaves_behind(finished: Path, recipe: Recipe) -> None:
    steps = [(record["stage"], record["step"]) for record in lines(finished)]
    assert steps == [("align", n) for n in range(1, 13)] + [("tune", n) for n in range(1, 10)]
    assert lines(finished)[12].keys() >= {"loss", "grad_norm", "lr/connector", "lr/language_model", "tokens", "seconds"}
    assert Recipe.load(finished / "run.json") == recipe
    assert Image.open(finished / "loss.png").size[0] > 500
    card = json.loads((finished / "model" / "llavakit.json").read_text())
    assert card["recipe_hash"] == recipe.hash() and card["versions"]["torch"] == torch.__version__
    totals = json.loads((finished / "stages" / "align" / "llavakit.json").read_text())["totals"]
    assert totals["samples"] == 48 and totals["bad"] == []
    left = {path.name for path in finished.iterdir()}
    assert left == {"run.json", "metrics.jsonl", "loss.png", "tensorboard", "stages", "model"}


def test_an_output_directory_is_never_taken_over(finished: Path, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="already holds a run; continue it with --resume"):
        train(recipe, finished)
    with pytest.raises(BadRequest, match=r"stages\.tune\.batch_size was 4, is 8"):
        train(recipe.evolve({"stages.tune.batch_size": 8, "stages.tune.epochs": 2.0}), finished, resume=True)
    with pytest.raises(BadRequest, match="holds no run to resume"):
        train(recipe, tmp_path / "new", resume=True)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadRequest, match="is not a run of llavakit"):
        train(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_diverges_stops_at_that_step(recipe: Recipe, tmp_path: Path) -> None:
    wild = recipe.evolve({"stages.align.train.connector": 1e30, "stages.align.clip": None})
    with pytest.raises(WorkFailed, match=r"step \d+: loss .*lower the learning rate"):
        train(wild, tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()


def test_skipped_records_are_counted_to_the_end(recipe: Recipe, tmp_path: Path) -> None:
    data = Path(recipe.stages["align"].data["all"].path)
    records = json.loads(data.read_text())
    records[2]["image"] = "lost.png"
    (tmp_path / "data.json").write_text(json.dumps(records))
    source = {"all": {"path": str(tmp_path / "data.json"), "images": str(data.parent)}}
    stage = recipe.stages["align"].evolve(data=source, epochs=1.0)
    with_gap = recipe.evolve(stages={"align": stage}, on_bad="skip")
    out = train(with_gap, tmp_path / "out").parent
    assert sum(record["bad"] for record in lines(out)) == 1  # type: ignore[misc]
    totals = json.loads((out / "stages" / "align" / "llavakit.json").read_text())["totals"]
    assert totals["samples"] == 11 and len(totals["bad"]) == 1 and "lost.png: no such file" in totals["bad"][0]
