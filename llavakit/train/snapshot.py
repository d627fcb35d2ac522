"""Snapshots: all that a run needs to go on as if it had never stopped. Whole or absent, safetensors and JSON."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, sha256, write_json, writing
from llavakit.base.log import log
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
    for other in directory.glob("[!.]*"):
        if other != target:
            # Renamed first: a kill must not leave half of a snapshot under a snapshot's name.
            shutil.rmtree(other.rename(directory / f".{other.name}.{os.getpid()}.old"))


def latest_snapshot(directory: Path, stage: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest snapshot of ``stage`` whose files are whole, and its state. Warns of a damaged one."""
    for path in sorted(directory.glob(f"{stage}-{'[0-9]' * 7}"), reverse=True):
        try:
            state: dict[str, Any] = read_json(path / "state.json")
            damaged = [name for name in TENSORS if not _whole(path / name, state["sha256"][name])]
        except (BadRequest, KeyError, TypeError):
            damaged = ["state.json"]
        if not damaged:
            return path, state
        log.warning(f"snapshot {path} is damaged ({', '.join(damaged)}) and is not used; its steps are trained again")
    return None


def _whole(path: Path, checksum: str) -> bool:
    return path.is_file() and sha256(path) == checksum


def load_snapshot(path: Path, model: Llava, optimiser: torch.optim.Optimizer) -> None:
    """Fills the parameters that train, and the optimiser, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(path / TENSORS[0]).items():
            parameters[name].copy_(value)
    load_named_state(model, optimiser, load_file(path / TENSORS[1]))
