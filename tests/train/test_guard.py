"""Unsound steps: named with their samples, stopped or skipped as configured, and counted to the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llavakit.base.errors import WorkFailed
from llavakit.model.llava import Llava, Member
from llavakit.train.guard import PATIENCE, Guard, Watch
from llavakit.train.ledger import Ledger
from llavakit.train.run import train
from llavakit.train.stage import Recipe

from .test_run import lines


@pytest.fixture()
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose loss on text alone is not a number, once: in the fourth step that has such a sample."""
    forward, seen = Llava.forward, iter(range(1000))

    def nan(self: Llava, batch, chunk=4096, by_token=None):  # type: ignore[no-untyped-def]
        loss = forward(self, batch, chunk, by_token)
        return loss * float("nan") if next(seen) == 3 else loss

    monkeypatch.setattr(Llava, "forward", nan)


def test_a_step_that_is_not_finite_stops_the_run_and_is_named(recipe: Recipe, tmp_path: Path, poisoned: None) -> None:
    with pytest.raises(WorkFailed, match=r"align, step 4: loss nan, .*; samples: r\d+ of all \(loss [\d.]+\), r\d+"):
        train(recipe, tmp_path / "run")
    assert [record["step"] for record in lines(tmp_path / "run")] == [1, 2, 3]


def test_or_it_is_skipped_and_counted(recipe: Recipe, tmp_path: Path, poisoned: None) -> None:
    out = train(recipe.evolve({"guard.not_finite": "skip"}), tmp_path / "run").parent
    skipped = [record for record in lines(out) if "unsound" in record]
    assert [(r["stage"], r["step"], r["loss"], r["skipped"]) for r in skipped] == [("align", 4, None, True)]
    assert len(skipped[0]["ids"]) == 4  # type: ignore[arg-type]
    totals = json.loads((out / "stages" / "align" / "llavakit.json").read_text())["totals"]
    assert (totals["skipped"], totals["unsound"]) == (1, 1)
    assert all(value.isfinite().all() for value in load_file(out / "model" / "model.safetensors").values())


def test_a_spike_is_a_multiple_of_the_usual_loss(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger()
    ledger.members = [Member("a/1", "vqa"), Member("b/2", "ocr")]
    ledger._sums = [torch.tensor([[2.0, 90.0], [2.0, 10.0]])]
    watch = Watch(Guard(), "tune", [2.0] * 15)
    assert watch.judge(15, 9.0, 1.0, ledger) == ("", False), "too early to tell"
    assert watch.judge(16, 6.1, 1.0, ledger) == ("loss 6.1, 3.0 times the usual 2", False)
    assert (
        "tune, step 17: loss 6.1, 3.0 times the usual 2; samples: b/2 of ocr (loss 9), a/1" in capsys.readouterr().err
    )
    assert watch.judge(17, 5.9, 1.0, ledger) == ("", False)
    with pytest.raises(WorkFailed, match="step 19: loss 8"):
        Watch(Guard(on_spike="stop"), "tune", [2.0] * 16).judge(18, 8.0, 1.0, ledger)


def test_skipping_has_an_end() -> None:
    watch = Watch(Guard(not_finite="skip"), "tune")
    for number in range(PATIENCE - 1):
        assert watch.judge(number, float("nan"), 1.0, Ledger())[1]
    with pytest.raises(WorkFailed, match="the 10th in a row to be skipped"):
        watch.judge(PATIENCE, 1.0, float("inf"), Ledger())
