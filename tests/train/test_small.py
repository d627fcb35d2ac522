"""Weights in two bytes and moments in one: they learn as the large ones do, and a run goes on with them exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llavakit.base.errors import BadRequest
from llavakit.recipes import resolve
from llavakit.train.gpus import GPUS
from llavakit.train.optim import adamw8bit
from llavakit.train.plan import Machines, plan
from llavakit.train.run import train
from llavakit.train.stage import Recipe
from tests.train.test_run import lines

SMALL = {"stages.tune.optimiser": "adamw8bit", "stages.tune.weights": "bfloat16"}


@pytest.fixture(scope="module")
def tuning(recipe: Recipe) -> Recipe:
    """The second stage alone, its rate low enough for steps that the nearest bfloat16 would not take."""
    pytest.importorskip("torchao")
    stage = recipe.stages["tune"].evolve(train={"connector": 1e-3, "language_model": 1e-3}, epochs=5)
    return recipe.evolve({"stages": {"tune": stage}, "precision": "bfloat16"})


def test_they_learn_as_large_ones_do_and_a_run_goes_on_exactly(
    tuning: Recipe, tmp_path: Path, break_off: Callable[..., None]
) -> None:
    small = tuning.evolve(SMALL)
    train(tuning, tmp_path / "large")
    train(small, tmp_path / "small")
    losses = {name: [record["loss"] for record in lines(tmp_path / name)] for name in ("large", "small")}
    fallen = losses["large"][0] - losses["large"][-1]
    assert fallen > 0.5
    assert all(abs(a - b) < 0.05 * fallen for a, b in zip(losses["large"], losses["small"], strict=True))
    model = tmp_path / "small" / "model" / "model.safetensors"
    assert {tensor.dtype for tensor in load_file(model).values()} == {torch.bfloat16}

    break_off(small, tmp_path / "broken", 5)
    train(small, tmp_path / "broken", resume=True)
    assert (tmp_path / "broken" / "model" / "model.safetensors").read_bytes() == model.read_bytes()


def test_small_steps_are_taken_by_chance_and_are_right_on_average() -> None:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(64, 1024, dtype=torch.bfloat16))
    optimiser = adamw8bit([{"params": [weight], "lr": 1e-4}], (0.9, 0.999))
    for _ in range(20):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    # To the nearest none would move: bfloat16 has 2 ** -8 below 1.
    assert weight.float().mean().item() == pytest.approx(1 - 20 * 1e-4, abs=2e-4)
    state = optimiser.state[weight]
    assert state["exp_avg"].codes.nbytes + state["exp_avg"].scale.nbytes == 64 * 1024 + 4 * 256


def test_the_13b_fits_on_one_gpu_with_them() -> None:
    machine = Machines(GPUS["h200"], 1)
    recipe = resolve("llava15-13b").evolve({"stages.tune.checkpoint": "layers"})
    large, small = (plan(r, machine).stages[1].memory["none"] for r in (recipe, recipe.evolve(SMALL)))
    room = 2**30 * GPUS["h200"].usable
    assert large.total > room > 1.1 * small.total
    assert small.optimiser == pytest.approx(large.optimiser / 4, rel=0.02)
    with pytest.raises(BadRequest, match="adamw8bit is for one process, and here are 2"):
        plan(recipe.evolve(SMALL), Machines(GPUS["h200"], 2))


def test_what_cannot_be_is_refused(tuning: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="set optimiser=adamw8bit"):
        tuning.evolve({"stages.tune.weights": "bfloat16"})
    with pytest.raises(BadRequest, match=r"stages\.tune\.weights: they are bfloat16 and products are to be float32"):
        tuning.evolve(SMALL | {"precision": "float32"})
    with pytest.raises(BadRequest, match="adapters are small and stay float32"):
        tuning.evolve(SMALL | {"stages.tune.lora": {"rank": 4}})
    monkeypatch.setattr("llavakit.train.preflight.world_size", lambda: 2)
    with pytest.raises(BadRequest, match="adamw8bit is for one process"):
        train(tuning.evolve(SMALL), tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadRequest, match=r"pip install 'llavakit\[quantize\]'"):
        train(tuning.evolve(SMALL), tmp_path / "out")
