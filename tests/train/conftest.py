"""A run in miniature: both stages of LLaVA-1.5 over tiny backbones, in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.samples import write


@pytest.fixture(scope="session")
def recipe(backbones: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Alignment (plain, crop) and tuning (vicuna_v1, pad) in float32: 12 steps and 9, a snapshot every second."""
    from llavakit.train.stage import Recipe

    data = {"all": {"path": str(write(tmp_path_factory.mktemp("data"), 12))}}
    return Recipe.parse(
        {
            "name": "miniature",
            "model": {"vision": str(backbones / "clip"), "language": str(backbones / "language")},
            "stages": {
                "align": {
                    "data": data,
                    "template": "plain",
                    "train": {"connector": 3e-2},
                    "batch_size": 4,
                    "epochs": 4,
                    "image": "crop",
                    "image_first": False,
                },
                "tune": {
                    "data": data,
                    "template": "vicuna_v1",
                    "train": {"connector": 3e-3, "language_model": 1e-2},
                    "batch_size": 4,
                    "epochs": 3,
                    "weight_decay": 0.01,
                },
            },
            "max_length": 256,
            "precision": "float32",
            "workers": 0,
            "snapshot_every": 2,
        }
    )


@pytest.fixture(scope="session")
def finished(recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """The directory of an unbroken run of ``recipe``, on one thread."""
    import torch

    from llavakit.train.run import train

    out = tmp_path_factory.mktemp("finished") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(recipe, out)
    finally:
        torch.set_num_threads(threads)
    return out


@pytest.fixture()
def break_off(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``break_off(recipe, out, 5)`` trains until it is interrupted as by Ctrl-C, in the step after the fifth."""
    from llavakit.train import run as running

    def broken(recipe: Any, out: Path, steps: int) -> None:
        done, one_step = iter(range(steps)), running.train_step

        def step(*args: Any) -> Any:
            if next(done, None) is None:
                raise KeyboardInterrupt
            return one_step(*args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(running, "train_step", step)
            running.train(recipe, out)

    return broken
