"""What is seen of a run: its figures, its event files, its trace; and what stops it before it begins."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from llavakit.base.errors import BadRequest
from llavakit.model import blocks, flash, lean
from llavakit.model.attention import attend_by_kernels
from llavakit.model.parts import freeze_all_but
from llavakit.train.flops import Cost, Work
from llavakit.train.peak import measured_peak
from llavakit.train.profile import Window
from llavakit.train.run import Looking, train
from llavakit.train.stage import Recipe

from .test_run import lines


def scalars(folder: Path) -> dict[str, list[float]]:
    """What TensorBoard's event files hold: records of length, checksum, protobuf, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(value.simple_value)
    return found


def test_tensorboard_has_what_the_metrics_have(finished: Path) -> None:
    for stage in ("align", "tune"):
        records = [record for record in lines(finished) if record["stage"] == stage]
        seen = scalars(finished / "tensorboard" / stage)
        for key in ("loss", "grad_norm", "lr/connector", "supervised_per_second", "mfu", "memory_gib", "seconds_left"):
            assert seen[key] == pytest.approx([record[key] for record in records], rel=1e-6), key
    assert records[-1]["seconds_left"] == 0


def test_flops_are_those_that_torch_counts(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from tests.train.test_validate import one_row

    # The model's, not those of a program that leaves out what nobody needs.
    monkeypatch.setattr(lean, "_known", lambda layer: False)
    monkeypatch.setattr(flash, "known", lambda query: False)
    monkeypatch.setattr(blocks, "attend", attend_by_kernels)
    model, codec = toy
    row = one_row(codec)
    for train_what in ({"connector": 1.0}, {"connector": 1.0, "language_model": 1.0, "vision_tower": 1.0}):
        freeze_all_but(model, train_what)  # type: ignore[arg-type]
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):
            model(row).backward()
        cost, work = Cost.of(model), Work.of([row])
        # Written out, attention computes the half that causality forbids too; fused, torch does not count it at all.
        whole = cost(work) + cost.square * work.squares
        assert whole == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_peak_is_a_rate_and_draws_nothing() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert 1e8 < measured_peak(torch.device("cpu"), torch.float32, seconds=0.05) < 1e15
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trace_opens_and_has_the_steps(recipe: Recipe, tmp_path: Path) -> None:
    short = recipe.evolve(stages={"align": recipe.stages["align"].evolve(epochs=2.0)})
    train(short, tmp_path / "run", looking=Looking(profile=Window(2, 3)))
    (trace,) = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == "align-2-3.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"align step 2", "align step 3", "aten::mm"} <= names and "align step 4" not in names
    for bad in ("3", "0:2", "4:3", "a:b"):
        with pytest.raises(BadRequest, match="is not FIRST:LAST"):
            Window.parse(bad)


def test_a_tracker_gets_every_step(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    tracker = types.ModuleType("trackio")
    tracker.__spec__ = types.SimpleNamespace(name="trackio")  # type: ignore[assignment]
    tracker.init = lambda **given: calls.append(("init", given))  # type: ignore[attr-defined]
    tracker.log = lambda values: calls.append(("log", values))  # type: ignore[attr-defined]
    tracker.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    short = recipe.evolve(stages={"align": recipe.stages["align"].evolve(epochs=1.0)})
    train(short, tmp_path / "run", looking=Looking(trackers=("trackio",)))
    assert [kind for kind, _ in calls] == ["init", "log", "log", "log", "finish"]
    assert calls[0][1]["config"] == short.plain() and calls[3][1]["align/step"] == 3
    with pytest.raises(BadRequest, match=r"no tracker 'wandbb' \(did you mean 'wandb'\?\)"):
        train(short, tmp_path / "other", looking=Looking(trackers=("wandbb",)))


def test_what_cannot_run_is_said_before_any_work(recipe: Recipe, tmp_path: Path) -> None:
    def refused(changes: dict[str, Any], match: str) -> None:
        with pytest.raises(BadRequest, match=match):
            train(recipe.evolve(changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused({"precision": "float16"}, "precision: Input should be 'float32' or 'bfloat16', got 'float16'")
    refused({"stages.tune.train": {"language_modle": 1e-5}}, "stages.tune.train")
    refused({"stages.tune.train": {}}, r"stages\.tune\.train: ")
    refused({"stages.tune.train": {"connector": 0.0}}, r"train\.connector: the rate 0 trains nothing")
    refused({"stages.tune.warmup": 10.0}, r"stages\.tune\.warmup: 10 steps of warm-up, and the stage has 9")
    refused({"stages.tune.data.all.path": "/nowhere.json"}, r"stages\.tune\.data\.all: no file at /nowhere\.json")
    bench = {"bench": {"pope": {"data": "/nowhere"}}}
    refused({"stages.tune.validation": bench}, "pope: no file or folder at /nowhere")
    refused({"stages.tune.validation": {"bench": {"mm-vet": {"data": "/nowhere"}}}}, "needs a judge")
