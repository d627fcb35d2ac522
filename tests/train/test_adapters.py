"""Adapters: they change nothing until they learn, only they move, and what is saved is the model that was trained."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from benchmarks.rows.models import talks
from llavakit.base.errors import BadRequest
from llavakit.data.collate import collate
from llavakit.model.adapters import Lora, merge
from llavakit.model.checkpoint import native_state
from llavakit.model.encode import encode
from llavakit.model.parts import count
from llavakit.train.optim import make_optimiser
from llavakit.train.run import train
from llavakit.train.shard import prepare
from llavakit.train.stage import Recipe, Stage

SMALL: dict[str, Any] = {"rank": 4, "alpha": 8}
KINDS = {
    "LoRA": SMALL,
    "DoRA": SMALL | {"dora": True},
    "LoRA on the tower too": SMALL | {"parts": ("language_model", "vision_tower")},
    "QLoRA": SMALL | {"base": "nf4"},
}


def stage_of(recipe: Recipe, **lora: Any) -> Stage:
    rates = {"connector": 3e-3, "language_model": 1e-2, "vision_tower": 1e-3}
    named = {"connector", *lora.get("parts", ("language_model",))}
    return recipe.stages["tune"].evolve(train={k: v for k, v in rates.items() if k in named}, lora=Lora(**lora))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_merged_is_what_was_trained(toy: Any, recipe: Recipe, kind: str) -> None:
    model, codec = toy
    stage = stage_of(recipe, **KINDS[kind] | {"dropout": 0.0})
    batch = collate([encode(talk, codec) for talk in talks()], codec.image_id)
    before = model(batch).item()
    names = native_state(model).keys()
    prepare(model, stage, seed=3)
    near = 0.05 if kind == "QLoRA" else 1e-6
    assert model(batch).item() == pytest.approx(before, rel=near), "fresh adapters add nothing"
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    adapters = {name for name in trainable if "lora_" in name}
    assert {name.split(".")[0] for name in adapters} == {"language_model"} | (
        {"vision_tower"} if "tower" in kind else set()
    )
    assert all(name.startswith("multi_modal_projector") for name in trainable - adapters)
    optimiser = make_optimiser(model, stage)
    for _ in range(3):
        optimiser.zero_grad()
        model(batch).backward()
        optimiser.step()
    learnt = model(batch).item()
    assert learnt < 0.95 * before
    merge(model)
    assert model(batch).item() == pytest.approx(learnt, rel=1e-5)
    assert native_state(model).keys() == names and not any("lora" in name for name in names)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_seed_decides_the_adapters(toy: Any, recipe: Recipe) -> None:
    model, _ = toy
    prepare(model, stage_of(recipe, **SMALL), seed=3)
    drawn = {name: p.clone() for name, p in model.named_parameters() if "lora_A" in name}
    merge(model)
    prepare(model, stage_of(recipe, **SMALL), seed=3)
    assert all(torch.equal(p, drawn[name]) for name, p in model.named_parameters() if "lora_A" in name)
    # r (in + out) of seven matrices in each of two layers, and the connector whole
    widths = 4 * (2 * (48 + 48) + 2 * (48 + 24) + 3 * (48 + 96))
    assert count(model, trainable=True) == 2 * widths + 32 * 48 + 48 + 48 * 48 + 48


def test_the_last_layers_of_the_tower(toy: Any, recipe: Recipe) -> None:
    model, _ = toy  # three layers, the second is the last one used
    stage = recipe.stages["tune"].evolve(train={"vision_tower": 1e-3}, tower_layers=1)
    prepare(model, stage)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains and all(".layers.1." in name for name in trains)
    prepare(model, stage.evolve(lora={**SMALL, "parts": ["vision_tower"]}))
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains and all(".layers.1." in name and "lora_" in name for name in trains)
    with pytest.raises(BadRequest, match="the last 3 layers of the tower are to train, and 2 of its layers are used"):
        prepare(model, stage.evolve(tower_layers=3))


def test_stages_that_contradict_themselves(recipe: Recipe) -> None:
    stage = recipe.stages["tune"]
    with pytest.raises(BadRequest, match="tower_layers: vision_tower is not named in train"):
        stage.evolve(tower_layers=2)
    with pytest.raises(BadRequest, match=r"lora\.parts: vision_tower is not named in train"):
        stage.evolve(lora={"parts": ["vision_tower"]})
    with pytest.raises(BadRequest, match="DoRA measures the weights"):
        stage.evolve(lora={"dora": True, "base": "nf4"})
    with pytest.raises(BadRequest, match="decode: tiles are made of the picture's true size"):
        stage.evolve(decode="fast", image={"grids": "hd"})
    with pytest.raises(BadRequest, match="neither a share of the steps nor a number of them"):
        stage.evolve(warmup=3.5)


def test_what_stage_two_lacks_is_said_before_stage_one(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = recipe.evolve({"stages.tune.train.vision_tower": 1e-5, "stages.tune.tower_layers": 7})
    with pytest.raises(BadRequest, match="the last 7 layers of the tower"):
        train(deep, tmp_path / "deep")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(BadRequest, match=r"need peft: pip install 'llavakit\[adapters\]'"):
        train(recipe.evolve({"stages.tune.lora": SMALL}), tmp_path / "lora")
    assert not any((tmp_path / name / "stages").exists() for name in ("deep", "lora"))


def test_an_interrupted_run_with_dropout_ends_in_the_same_bytes(
    recipe: Recipe, tmp_path: Path, break_off: Callable[..., None]
) -> None:
    lora = recipe.evolve(stages={"tune": stage_of(recipe, **SMALL, dropout=0.3)})
    whole = train(lora, tmp_path / "whole")
    break_off(lora, tmp_path / "broken", 5)
    reader = FileSystemReader(tmp_path / "broken" / "snapshots" / "tune-0000004")
    kept = reader.read_metadata().state_dict_metadata
    assert kept and all("lora_" in name or "projector" in name for name in kept), "only what learns is kept"
    again = train(lora, tmp_path / "broken", resume=True)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
