"""Recomputing and kept features change no loss and no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.rows.models import made, talks
from llavakit.base.errors import BadRequest
from llavakit.data.collate import collate
from llavakit.model.encode import encode
from llavakit.model.llava import Batch, Llava
from llavakit.model.parts import freeze_all_but
from llavakit.train.fast import arrange
from llavakit.train.stage import Stage


def stage(**choices: Any) -> Stage:
    data = {"all": {"path": "none"}}
    train = {"connector": 1e-3}
    return Stage.parse({"data": data, "template": "vicuna_v1", "train": train, "batch_size": 4, **choices})


def gradients(model: Llava, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(batch)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6) and one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).abs().max() <= 1e-5 * gradient.abs().max().clamp(min=1), name


@pytest.mark.parametrize("language", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("how", ["layers", "products"])
def test_recomputing_is_equal(language: str, how: str, tmp_path: Path) -> None:
    """Of layers that are ours between the products, and of transformers' own."""
    model, codec = made("clip", language, tmp_path)
    batch = collate([encode(talk, codec) for talk in talks()], codec.image_id)
    model.train()
    kept = gradients(model, batch)
    arrange(model, stage(checkpoint=how))
    sizes = {}
    for name in ("again", "kept"):
        saved = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(batch)
        sizes[name] = saved
        if name == "again":
            model.zero_grad()
            loss.backward()
            found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            assert_same((loss.item(), found), kept)
        arrange(model, stage())
    assert sizes["again"] < sizes["kept"]


def test_kept_features_are_equal(toy: Any, tmp_path: Path) -> None:
    model, codec = toy
    freeze_all_but(model, {"connector": 1e-3})
    batch = collate([encode(talk, codec) for talk in talks()], codec.image_id)
    model.train()
    computed = gradients(model, batch)
    arrange(model, stage(features=str(tmp_path)))
    for found in (0, len(batch.pixels)):
        assert_same(gradients(model, batch), computed)
        assert (model.features.found, model.features.computed) == (found, len(batch.pixels))
    with torch.autocast("cpu", torch.bfloat16):
        model(batch)
    assert model.features.found == len(batch.pixels), "another precision, other files"
    with torch.no_grad():
        model.vision_tower.layers[0].mlp.fc1.weight.mul_(1.1)
    folder = model.features.folder
    arrange(model, stage(features=str(tmp_path)))
    assert model.features.folder != folder, "other weights, another folder"


def test_features_that_cannot_be_kept(toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, codec = toy
    freeze_all_but(model, {"connector": 1e-3})
    batch = collate([encode(talk, codec) for talk in talks()], codec.image_id)
    arrange(model, stage(features=str(tmp_path), features_gib=1e-6))
    assert_same(gradients(model, batch), gradients(model, batch))
    assert not list(tmp_path.rglob("*.safetensors")), "full from the start"
    arrange(model, stage(features=str(tmp_path)))
    model(batch)
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(BadRequest, match=f"{file.name} is damaged"):
        model(batch)
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match="features cannot be kept in"):
        arrange(model, stage(features=str(tmp_path / "file")))
    with pytest.raises(BadRequest, match="the tower trains"):
        stage(features=str(tmp_path), train={"vision_tower": 1e-5})
