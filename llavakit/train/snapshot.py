"""Snapshots: all that a run needs to go on as if it had never stopped. Whole or absent, safetensors and JSON."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llavakit.base.files import read_json, sha256, write_json, writing
from llavakit.model.llava import Llava
from llavakit.train.optim import load_named_state, named_state

TENSORS = ("model.safetensors", "optimiser.safetensors")


def save_snapshot(
    directory: Path, stage: str, step: int, model: Llava, optimiser: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Writes ``directory/STAGE-STEP`` (``step`` steps of the stage are done), then removes the older ones."""
    target = directory / f"{stage}-{step:07d}"
    with writing(target) as temporary:
        temporary.mkdir()
        trained = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
        # Tied weights are one parameter with one name here, so nothing is stored twice.
        save_file(trained, temporary / TENSORS[0])
        save_file(named_state(model, optimiser), temporary / TENSORS[1])
        sums = {name: sha256(temporary / name) for name in TENSORS}
        write_json(temporary / "state.json", {"stage": stage, "step": step, "sha256": sums, **state})
    for other in directory.iterdir():
        if other != target and not other.name.startswith("."):
            shutil.rmtree(other)


def latest_snapshot(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest snapshot whose files are whole, and its state."""
    if not directory.is_dir():
        return None
    for path in sorted(directory.glob("[!.]*"), key=lambda p: p.stat().st_mtime, reverse=True):
        state = read_json(path / "state.json")
        if all((path / name).is_file() and sha256(path / name) == state["sha256"][name] for name in TENSORS):
            return path, state
    return None


def load_snapshot(path: Path, model: Llava, optimiser: torch.optim.Optimizer) -> None:
    """Fills the parameters that train, and the optimiser, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(path / TENSORS[0]).items():
            parameters[name].copy_(value)
    load_named_state(model, optimiser, load_file(path / TENSORS[1]))
