"""A killed run that goes on ends in the bytes of the run that was never killed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavakit.base.errors import WorkFailed
from llavakit.train import run as running
from llavakit.train.optim import make_optimiser
from llavakit.train.run import train
from llavakit.train.shard import prepare
from llavakit.train.snapshot import Snapshots
from llavakit.train.stage import Recipe
from tests.train.test_run import lines

TRAIN = """
import sys
from llavakit.train.run import train
from llavakit.train.stage import Recipe
train(Recipe.load(sys.argv[1]), sys.argv[2], resume=sys.argv[3] == "resume")
"""


def same_model(one: Path, other: Path) -> bool:
    name = "model/model.safetensors"
    return (one / name).read_bytes() == (other / name).read_bytes()


def test_killed_at_any_moment_a_run_ends_in_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kill_after in (3, 12, 17, None):
        how = "resume" if out.exists() else "start"
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(finished / "run.json"), str(out), how],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        if kill_after is not None:
            metrics = out / "metrics.jsonl"
            while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < kill_after):
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == (0 if kill_after is None else -signal.SIGKILL), errors
    assert same_model(out, finished)
    steps = [(record["stage"], record["step"], record["loss"]) for record in lines(out)]
    assert steps == [(record["stage"], record["step"], record["loss"]) for record in lines(finished)]
    assert {path.name for path in out.rglob(".*")} == set()


@pytest.fixture()
def interrupted(recipe: Recipe, tmp_path: Path, break_off: Callable[..., None]) -> Path:
    """A run that ended in its sixth step, with snapshots of the second and the fourth."""
    break_off(recipe, tmp_path / "run", 5)
    left = sorted(path.name for path in (tmp_path / "run" / "snapshots").iterdir())
    assert left == ["align-0000002", "align-0000004"]
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "state.json"])
def test_a_damaged_snapshot_is_said_and_not_used(
    interrupted: Path, finished: Path, recipe: Recipe, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = interrupted / "snapshots" / "align-0000004" / name
    data = bytearray(file.read_bytes())
    data[0 if name == "state.json" else -1] ^= 1
    file.write_bytes(data)
    train(recipe, interrupted, resume=True)
    said = capsys.readouterr().err
    assert f"align-0000004 is damaged ({name}) and is not used" in said and "resumed align after step 2" in said
    assert same_model(interrupted, finished)
    assert len(lines(interrupted)) == len(lines(finished))


def test_an_older_whole_snapshot_serves_in_place_of_a_damaged_one(interrupted: Path) -> None:
    snapshots = interrupted / "snapshots"
    shutil.copytree(snapshots / "align-0000004", snapshots / "align-0000006")
    (snapshots / "align-0000006" / "__0_0.distcp").unlink()
    found = Snapshots(snapshots, "align", 1).latest()
    assert found is not None and found[0].name == "align-0000004" and found[1]["step"] == 4
    assert Snapshots(snapshots, "tune", 1).latest() is None


def test_what_a_killed_process_left_half_written_is_cleared_away(
    interrupted: Path, finished: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    for left in ("snapshots/.align-0000006.4711.tmp", "snapshots/.align-0000002.4711.old", "stages/.align.4711.tmp"):
        (interrupted / left).mkdir(parents=True)
        (interrupted / left / "model.safetensors").write_bytes(b"half")
    train(recipe, interrupted, resume=True)
    errors = capsys.readouterr().err
    assert "resumed align after step 4" in errors and "damaged" not in errors
    assert {path.name for path in interrupted.rglob(".*")} == set()
    assert same_model(interrupted, finished)


def test_a_snapshot_that_cannot_be_written_leaves_the_one_before(toy: Any, recipe: Recipe, tmp_path: Path) -> None:
    stage = recipe.stages["tune"]
    model, _ = toy
    prepare(model, stage)
    optimiser = make_optimiser(model, stage)
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    optimiser.step()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = r"tune-0000004 could not be written: .*; those before it are whole"
    with pytest.raises(WorkFailed, match=said), Snapshots(tmp_path, "tune", 1) as snapshots:
        snapshots.save(2, model, optimiser, {"value": 0.5})
        snapshots.wait()
        # As a full disk does, this lets a write fail half-way.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            snapshots.save(4, model, optimiser, {"value": 0.6})
            snapshots.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["tune-0000002"]
    with Snapshots(tmp_path, "tune", 1) as snapshots:
        found = snapshots.latest()
        assert found is not None and found[1]["step"] == 2
        for step, value in ((4, 0.6), (6, 0.7)):
            snapshots.save(step, model, optimiser, {"value": value})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tune-0000002", "tune-0000006"], (
        "the best, and the last"
    )


def test_told_to_stop_it_stops_with_a_snapshot_and_goes_on_from_it(
    recipe: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(100))
    one_step = running.train_step

    def step(*args: Any) -> object:
        if next(steps) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*args)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, pytest.raises(WorkFailed, match="after step 7 of align; go on with --resume"):
        patch.setattr(running, "train_step", step)
        train(recipe, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "run" / "snapshots" / "align-0000007").is_dir()
    train(recipe, tmp_path / "run", resume=True)
    assert same_model(tmp_path / "run", finished)
