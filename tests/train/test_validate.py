"""Validation: it measures what did not train, changes nothing, keeps the best, and is exact after an interruption."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llavakit.base.errors import BadRequest
from llavakit.data.collate import collate
from llavakit.data.mixture import Mixture, SourceSpec, open_source
from llavakit.eval.run import BENCHMARKS
from llavakit.model import checkpoint
from llavakit.model.encode import encode
from llavakit.model.llava import Batch
from llavakit.train.run import train
from llavakit.train.stage import Recipe
from llavakit.train.validate import some
from tests.data.samples import records, write

from .test_run import lines


@pytest.fixture(scope="module")
def watched(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The miniature's tuning, of two sources, with four records of a third and questions that only validate."""
    folder = tmp_path_factory.mktemp("held")
    extra = str(write(folder, 4))
    asked = [
        {
            "question_id": str(n),
            "image": f"{n}.png",
            "text": "What colour is it?",
            "answers": ["red"],
            "metric": "exact",
        }
        for n in range(3)
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    tune = recipe.stages["tune"]
    data = {"one": {"path": tune.data["all"].path}, "two": {"path": str(write(tmp_path_factory.mktemp("two"), 8))}}
    validation = {
        "sources": {"extra": {"path": extra}},
        "bench": {"records": {"data": str(folder / "asked.jsonl"), "images": str(folder), "max_new_tokens": 4}},
        "keep_best": True,
    }
    stage = tune.evolve(data=data, eval_every=4, validation=validation, epochs=2.0)
    return recipe.evolve(stages={"tune": stage})


@pytest.fixture(scope="module")
def seen(watched: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(watched, tmp_path_factory.mktemp("seen") / "run").parent


def test_looking_changes_nothing(seen: Path, watched: Recipe, tmp_path: Path) -> None:
    blind = watched.evolve({"stages.tune.eval_every": None, "stages.tune.validation": {}})
    out = train(blind, tmp_path / "run")
    assert (out / "model.safetensors").read_bytes() == (seen / "model" / "model.safetensors").read_bytes()


def test_held_out_loss_is_that_of_the_checkpoint(seen: Path, watched: Recipe) -> None:
    found = lines(seen)
    measured = [record for record in found if "valid/loss" in record]
    assert [record["step"] for record in measured] == [4, 8, 10] and len(found) == 10
    assert all(record["valid/loss"] == record["valid/loss/extra"] for record in measured)
    assert {record["valid/records"] for record in measured} <= {0.0, *(100 * n / 3 for n in (1, 2, 3))}
    model, codec = checkpoint.load(seen / "stages" / "tune")
    source = open_source("extra", watched.stages["tune"].validation.sources["extra"], True)
    batches = [collate([encode(source[i], codec)], codec.image_id) for i in range(len(source))]
    with torch.no_grad():
        loss = sum(model(batch).item() for batch in batches) / sum(len(batch.targets) for batch in batches)
    assert measured[-1]["valid/loss"] == pytest.approx(loss, rel=1e-5)


def test_a_steps_loss_is_the_mean_of_its_sources(seen: Path) -> None:
    for record in lines(seen):
        parts = [record.get("loss/one"), record.get("loss/two")]
        known = [part for part in parts if part is not None]
        assert known and min(known) - 1e-6 <= record["loss"] <= max(known) + 1e-6  # type: ignore[type-var, operator]


def test_the_best_weights_are_kept(seen: Path) -> None:
    measured = {record["step"]: record["valid/loss"] for record in lines(seen) if "valid/loss" in record}
    card = json.loads((seen / "best" / "tune" / "llavakit.json").read_text())
    assert measured[card["step"]] == min(measured.values()) == card["measured"]["valid/loss"]
    assert checkpoint.load(seen / "best" / "tune")[0].image_tokens == 16


def test_interrupted_it_measures_the_same(
    seen: Path, watched: Recipe, tmp_path: Path, break_off: Callable[..., None]
) -> None:
    break_off(watched, tmp_path / "run", 9)
    state = json.loads((tmp_path / "run" / "snapshots" / "tune-0000008" / "state.json").read_text())
    assert state["value"] == lines(seen)[7]["valid/loss"]
    train(watched, tmp_path / "run", resume=True)
    timeless = [
        [{k: v for k, v in record.items() if "second" not in k and k not in ("mfu", "memory_gib")} for record in run]
        for run in (lines(tmp_path / "run"), lines(seen))
    ]
    assert timeless[0] == timeless[1]
    for name in ("model", "best/tune"):
        weights = f"{name}/model.safetensors"
        assert (tmp_path / "run" / weights).read_bytes() == (seen / weights).read_bytes()


def test_no_picture_trains_and_validates(tmp_path: Path) -> None:
    made = records(12, tmp_path)
    twice = [{**record, "id": f"{record['id']} again"} for record in made]
    (tmp_path / "data.json").write_text(json.dumps([*made, *twice]))
    spec = SourceSpec(path=str(tmp_path / "data.json"), holdout=5)
    sides = [open_source("all", spec, True, seed, held) for seed in (0, 1) for held in (False, True)]
    pictures = [{str(side[i].images) or side[i].id for i in range(len(side))} for side in sides]
    train_side, held_side = sides[:2]
    assert len(train_side) + len(held_side) == 24 and 5 <= len(held_side) <= 6
    assert pictures[0] & pictures[1] <= {"()"} and pictures[:2] == pictures[2:], "whatever the seed"
    with pytest.raises(BadRequest, match="no records in all"):
        Mixture.of({"all": spec.evolve(holdout=24)}, True)


def test_what_cannot_be_measured_is_refused(recipe: Recipe, watched: Recipe) -> None:
    with pytest.raises(BadRequest, match="eval_every: nothing is held out"):
        recipe.evolve({"stages.tune.eval_every": 5})
    with pytest.raises(BadRequest, match=r"validation\.best: 'pope' is not measured; measured are loss, records"):
        watched.evolve({"stages.tune.validation.best": "pope"})
    with pytest.raises(BadRequest, match="is the name of a source that holds records out"):
        watched.evolve({"stages.tune.data.extra": {"path": "a.json", "holdout": 3}})


def test_a_limit_takes_whole_pictures_from_everywhere(tmp_path: Path) -> None:
    asked = [
        {
            "question_id": f"{picture}.{n}",
            "image": f"{picture}.png",
            "text": f"{n}?",
            "answers": ["a"],
            "metric": "exact",
        }
        for picture in range(20)
        for n in range(3)
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    questions = BENCHMARKS["records"].load(tmp_path / "asked.jsonl", tmp_path)
    chosen = [question.id for question in some(questions, 12)]
    assert len(chosen) == 12 and chosen == [q.id for q in questions if q.id in chosen]
    pictures = sorted({int(id.split(".")[0]) for id in chosen})
    assert len(pictures) == 4 and max(pictures) >= 15 and math.isclose(len(some(questions, None)), 60)


def one_row(codec: Any) -> Batch:
    """Samples with and without a picture in a row."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 8)
        source = open_source("all", SourceSpec(path=f"{folder}/data.json"), True)
        return collate([encode(source[i], codec) for i in range(len(source))], codec.image_id)
