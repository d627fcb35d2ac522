"""The planned memory is that of the step that really runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llavakit.data.lengths import Lengths, Sizes, published
from llavakit.model.parts import freeze_all_but
from llavakit.recipes import resolve
from llavakit.train.advice import _changes, advice
from llavakit.train.budget import Budget, largest_row
from llavakit.train.gpus import GPUS
from llavakit.train.memory import Live, Row, _measure, step_memory
from llavakit.train.plan import Machines, plan
from llavakit.train.plan_text import text
from tests.train.test_validate import one_row


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trains", [{"connector": 1.0}, {"connector": 1.0, "language_model": 1.0}])
def test_what_a_row_keeps_is_what_a_real_row_keeps(toy: Any, precision: torch.dtype, trains: Any) -> None:
    model, codec = toy
    freeze_all_but(model.train(), trains)
    batch = one_row(codec)
    assert batch.pixels is not None
    row = Row(tuple(batch.segments), len(batch.predict), len(batch.pixels), len(batch.image_at))
    planned = step_memory(model, row, precision)
    for _ in range(2):
        live = Live(model)
        with live, torch.autocast("cpu", precision, enabled=precision != torch.float32):
            model(batch).backward()
    real = live.peak
    assert planned.total == pytest.approx(real, rel=0.05)
    assert all(p.device.type == "cpu" and p.abs().sum() >= 0 for p in model.parameters()), "its own weights are back"


@pytest.fixture()
def deep(toy: Any) -> Any:
    """Twelve layers on the meta device, connector and language model trained."""
    from llavakit.model.build import ModelSpec, outline

    model, _ = toy
    small = model.language_model.config
    config = type(small).from_dict(small.to_dict() | {"num_hidden_layers": 12})
    with torch.device("meta"):
        found = outline(model.vision_tower.config, config, ModelSpec(vision="a", language="b"), model.square)
    freeze_all_but(found, {"connector": 1.0, "language_model": 1.0})
    return found


def test_few_layers_stand_for_many(deep: Any) -> None:
    row = Row((120, 80), 60, 2, 32)
    line = step_memory(deep, row, torch.bfloat16)
    whole = _measure(deep, row, torch.bfloat16, False)
    assert line.total == pytest.approx(whole.total, rel=0.02)


def test_what_is_computed_again_is_not_kept(deep: Any) -> None:
    stage = resolve("llava15-7b").stages["tune"]
    row = Row((120, 80), 60, 2, 32)
    kept = [
        Budget(deep, stage.evolve(checkpoint=what), row, torch.float32).whole().activations
        for what in ("none", "products", "layers")
    ]
    assert kept[0] > 1.1 * kept[1] > 1.1 * 1.5 * kept[2]


def test_what_would_help_is_tried_in_order() -> None:
    recipe = resolve("llava15-7b")
    tried = [said for said, *_ in _changes(recipe, "tune", Machines(GPUS["rtx4090"], 1))]
    small = "stages.tune.weights=bfloat16 stages.tune.optimiser=adamw8bit"
    wanted = ["stages.tune.checkpoint=layers", small, f"{small} stages.tune.checkpoint=layers", "2 GPUs"]
    first = tried.index(wanted[0])
    assert tried[first : first + 4] == wanted
    assert tried[tried.index("16 GPUs") - 1].endswith("base: nf4}' (and its rate) stages.tune.checkpoint=layers")
    assert small not in [said for said, *_ in _changes(recipe, "tune", Machines(GPUS["rtx4090"], 2))]


def test_rows_are_packed_as_training_packs_them() -> None:
    stage = resolve("llava15-7b").stages["tune"].evolve(row_tokens=1500, batch_size=4)
    sizes = published(Lengths(text=256, spread=0.8, supervised=0.35, pictures=0.9), 576, 1, 2048)
    row = largest_row(sizes, stage, 576)
    assert sum(row.segments) <= max(1500, int(sizes.tokens.max())) and row.pictures <= 2
    assert sizes.tokens.mean() == pytest.approx(0.9 * 576 + 256, rel=0.02)
    one = Sizes(*(values[:1] for values in (sizes.tokens, sizes.supervised, sizes.pictures)))
    assert largest_row(one, stage, 576).segments == (int(sizes.tokens[0]),)


def test_a_plan_says_what_fits_and_what_would(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = resolve("llava15-7b")
    found = plan(recipe, Machines(GPUS["h200"], 1))
    align, tune = found.stages
    weights = 4 * found.parameters
    assert tune.memory["none"].weights == pytest.approx(weights, rel=1e-6)
    assert tune.memory["none"].optimiser == 2 * tune.memory["none"].gradients == 8 * sum(tune.trainable.values())
    assert align.memory["none"].gradients == 4 * 20_979_712
    # 6 FLOPs a weight and token, and the tower, its connector and attention besides
    layers = found.sizes["language_model"] - 2 * 32_000 * 4096
    assert 1.0 < tune.flops / (6 * layers * tune.tokens) < 1.2
    assert tune.hours == pytest.approx(tune.flops / (989e12 * 0.4) / 3600)
    assert tune.cost == pytest.approx(tune.hours * 3.3)
    again = plan(recipe.evolve({"stages.tune.checkpoint": "layers"}), Machines(GPUS["h200"], 1)).stages[1]
    assert again.flops == tune.flops and 1.25 < again.hours / tune.hours < 1.34
    (line,) = advice(found)
    assert line.startswith("tune does not fit:") and "change that does: stages.tune.row_tokens=2048" in line
    shown = text(found)
    assert line in shown and "fits 140" in shown and "hours and cost: 1 x h200 at 40% of 989 TFLOP/s" in shown
