"""One optimiser step: the same gradient however it is cut in rows, decay where it belongs, no step into NaN."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from llavakit.base.errors import WorkFailed
from llavakit.chat.template import get_template
from llavakit.data.loader import Step, Steps
from llavakit.data.mixture import Mixture
from llavakit.model.parts import freeze_all_but
from llavakit.train.optim import make_optimiser, set_rates
from llavakit.train.schedule import schedule
from llavakit.train.stage import Recipe, Stage
from llavakit.train.step import train_step


def step_of(recipe: Recipe, codec: Any, row_tokens: int) -> Step:
    mixture = Mixture.of(recipe.stages["tune"].data, image_first=True)
    return Steps(mixture, codec.using(get_template("vicuna_v1")), 8, row_tokens, 1, "stop")[0]


def prepared(toy: Any, stage: Stage) -> tuple[Any, torch.optim.AdamW]:
    model, _ = toy
    freeze_all_but(model, stage.train)
    return model.train(), make_optimiser(model, stage)


def test_gradients_do_not_depend_on_the_rows(toy: Any, recipe: Recipe) -> None:
    stage = recipe.stages["tune"]
    model, optimiser = prepared(toy, stage)
    set_rates(optimiser, 0.0)
    found, losses = [], []
    for row_tokens, rows in ((1, 8), (400, 4), (100_000, 1)):
        step = step_of(recipe, toy[1], row_tokens)
        assert len(step.rows) == rows
        losses.append(train_step(model, step, optimiser, None, torch.float32).loss)
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert max(losses) - min(losses) < 1e-5
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, gradient in other.items():
            assert (gradient - found[0][name]).abs().max() <= 1e-5 * found[0][name].abs().max().clamp(min=1), name


def test_bfloat16_is_near_and_weights_stay_float32(toy: Any, recipe: Recipe) -> None:
    model, optimiser = prepared(toy, recipe.stages["tune"])
    set_rates(optimiser, 0.0)
    step = step_of(recipe, toy[1], 4096)
    exact = train_step(model, step, optimiser, None, torch.float32).loss
    assert train_step(model, step, optimiser, None, torch.bfloat16).loss == pytest.approx(exact, rel=0.02)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_gradients_are_clipped(toy: Any, recipe: Recipe) -> None:
    model, optimiser = prepared(toy, recipe.stages["tune"])
    outcome = train_step(model, step_of(recipe, toy[1], 4096), optimiser, 0.01, torch.float32)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert outcome.grad_norm > 0.01 and norm.item() == pytest.approx(0.01, rel=1e-3)


def test_a_step_that_is_not_finite_is_named_and_moves_no_weight(toy: Any, recipe: Recipe) -> None:
    model, optimiser = prepared(toy, recipe.stages["tune"].evolve(train={"connector": 1e30}))
    step = step_of(recipe, toy[1], 4096)
    train_step(model, step, optimiser, None, torch.float32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step.number = 41
    with pytest.raises(WorkFailed, match=r"step 42: loss .*nan"):
        train_step(model, step, optimiser, None, torch.float32)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_decay_skips_norms_and_biases(toy: Any, recipe: Recipe) -> None:
    model, optimiser = prepared(toy, recipe.stages["tune"].evolve(weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    plain = {names[id(p)] for g in optimiser.param_groups if not g["weight_decay"] for p in g["params"]}
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in decayed
    assert plain and all(name.endswith("bias") or "norm" in name for name in plain)
    assert not any(name.endswith("bias") or "norm" in name for name in decayed)
    assert decayed | plain == {name for name, p in model.named_parameters() if p.requires_grad}
    assert set_rates(optimiser, 0.5) == {"connector": 1.5e-3, "language_model": 5e-3}


def test_warm_up_then_cosine_to_zero() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(101)]
    assert factors[:11] == pytest.approx([step / 10 for step in range(11)])
    assert factors[55] == pytest.approx(0.5) and factors[100] == pytest.approx(0)
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert schedule(0, 1, 0.0) == 1.0
