"""Snapshots: all that a run needs to go on as if it had never stopped, on as many ranks as it then has.

A snapshot is a distributed checkpoint of PyTorch and ``state.json``, in a directory that is whole or absent. It is
copied at once and written while training goes on.
"""

from __future__ import annotations

import shutil
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from llavakit.base.dist import background, fail, first, is_main, rank, share, world_size
from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import read_json, sha256, write_json
from llavakit.base.log import log
from llavakit.model.llava import Llava
from llavakit.train.optim import load_named_state, named_state

# A process alone is what it warns of.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

STATE = "state.json"
BAR = "|"


class Snapshots:
    """The snapshots of one stage, of which the last ``keep`` are kept, and the one with the lowest ``value``.

    A context: leaving it waits for what is being written. All ranks do the same with it.
    """

    def __init__(self, directory: Path, stage: str, keep: int) -> None:
        self.directory = directory
        self.stage = stage
        self.keep = keep
        self.group = background()
        self.writer: threading.Thread | None = None
        self.failure: WorkFailed | None = None

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.writer is not None:
            self.writer.join()
        if failure[0] is None:
            self.wait()

    def save(
        self,
        step: int,
        model: Llava,
        optimiser: torch.optim.Optimizer,
        state: dict[str, Any],
    ) -> None:
        """Begins to write ``directory/STAGE-STEP`` (``step`` steps of the stage are done), when the one before it is
        written. A ``value`` in ``state`` says how good the model is: the lower, the better.

        Raises :class:`WorkFailed` when that one could not be written.
        """
        self.wait()
        name = f"{self.stage}-{step:07d}"
        # The process that died under this very name may have had this one's number.
        temporary = self.directory / f".{name}.0.tmp"
        writer = dcp.FileSystemWriter(temporary, overwrite=True)
        copied = writer.stage(_tensors(model, optimiser))
        state = {"stage": self.stage, "step": step, "value": None, **state}
        self.writer = threading.Thread(target=self._write, args=(name, writer, copied, state), daemon=True)
        self.writer.start()

    def wait(self) -> None:
        """Returns when nothing is being written. Raises :class:`WorkFailed` when that went wrong."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None
        if self.failure is not None:
            fail(self.failure)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest snapshot whose files are whole, and its state. Warns of a damaged one."""
        for path in first(lambda: _found(self.directory, self.stage)):
            state, damaged = first(partial(_state, path))
            for part in share(_damaged(path, state)):
                damaged += part
            if not damaged:
                return path, state
            if is_main():
                log.warning(
                    f"snapshot {path} is damaged ({', '.join(damaged)}) and is not used; its steps are trained again"
                )
        return None

    def _write(self, name: str, writer: dcp.FileSystemWriter, copied: dict[str, Any], state: dict[str, Any]) -> None:
        temporary = Path(writer.path)
        problem: str | None = None
        try:
            dcp.save(copied, storage_writer=writer, process_group=self.group, no_dist=world_size() == 1)
            sums = {key: value for part in share(_sums(temporary), self.group) for key, value in part.items()}
            if is_main():
                problem = self._publish(temporary, name, state | {"sha256": sums})
            problem = share(problem, self.group)[0]
        except (CheckpointException, OSError, RuntimeError) as error:
            problem = _reason(error)
        if problem is not None:
            if is_main():
                shutil.rmtree(temporary, ignore_errors=True)
            self.failure = WorkFailed(
                f"the snapshot {self.directory / name} could not be written: {problem}; those before it are whole, and "
                "--resume goes on from there"
            )

    def _publish(self, temporary: Path, name: str, state: dict[str, Any]) -> str | None:
        """Gives a snapshot its name and removes those that it makes superfluous; says what went wrong."""
        try:
            write_json(temporary / STATE, state)
            _replace(temporary, self.directory / name)
            own = _found(self.directory, self.stage)
            kept = {*own[: self.keep], *_best(own)}
            for path in self.directory.glob("[!.]*"):
                if path not in kept:
                    _replace(None, path)
        except OSError as error:
            return _reason(error)
        return None


def load_snapshot(path: Path, model: Llava, optimiser: torch.optim.Optimizer) -> None:
    """Fills the parameters that train, and the optimiser, in place, however many ranks wrote them."""
    parameters = dict(model.named_parameters())
    state = {f"model{BAR}{name}": p.detach() for name, p in parameters.items() if p.requires_grad}
    reader = dcp.FileSystemReader(path)
    stored: Any
    for key, stored in reader.read_metadata().state_dict_metadata.items():
        kind, name, *_ = key.split(BAR)
        if kind == "optimiser":
            like, dtype = parameters[name].detach(), stored.properties.dtype
            # States as large as their parameter are sharded as it is.
            same = stored.size == like.shape
            state[key] = torch.zeros_like(like, dtype=dtype) if same else torch.zeros(stored.size, dtype=dtype)
    dcp.load(state, storage_reader=reader, no_dist=world_size() == 1)
    prefix = f"optimiser{BAR}"
    load_named_state(model, optimiser, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _tensors(model: Llava, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    # Tied weights are one parameter with one name here, so nothing is stored twice.
    trained = {f"model{BAR}{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return trained | {f"optimiser{BAR}{key}": value for key, value in named_state(model, optimiser).items()}


def _found(directory: Path, stage: str) -> list[Path]:
    """Snapshots of a stage, the newest first."""
    return sorted(directory.glob(f"{stage}-{'[0-9]' * 7}"), reverse=True)


def _best(paths: list[Path]) -> list[Path]:
    values = {path: _state(path)[0].get("value") for path in paths}
    valued = {path: value for path, value in values.items() if value is not None}
    return [min(valued, key=lambda path: valued[path])] if valued else []


def _sums(directory: Path) -> dict[str, str]:
    """Checksums of the files that this rank has written: its own, and the first also what describes all."""
    own = f"__{rank()}_"
    files = [file for file in directory.iterdir() if file.name.startswith(own) or (is_main() and file.name[0] == ".")]
    return {file.name: sha256(file) for file in files}


def _state(path: Path) -> tuple[dict[str, Any], list[str]]:
    """``state.json`` of a snapshot, and its name where it is damaged."""
    try:
        state: dict[str, Any] = read_json(path / STATE)
        return state, [] if dict(state["sha256"]) and "step" in state else [STATE]
    except (BadRequest, KeyError, TypeError, ValueError):
        return {"sha256": {}}, [STATE]


def _damaged(path: Path, state: dict[str, Any]) -> list[str]:
    """Names of damaged files, among those that fall to this rank to read."""
    mine = sorted(state["sha256"].items())[rank() :: world_size()]
    return [name for name, sum_ in mine if not (path / name).is_file() or sha256(path / name) != sum_]


def _replace(new: Path | None, path: Path) -> None:
    """Puts ``new``, or nothing, in the place of ``path``, renamed first: a kill leaves no half of it under its name."""
    old = path.with_name(f".{path.name}.0.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    if new is not None:
        new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """One line. What failed on some ranks comes as one error with all of theirs."""
    if isinstance(error, CheckpointException):
        causes = [cause for cause, _ in error.failures.values()]
        error = causes[0] if causes else error
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
