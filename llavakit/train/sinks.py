"""Where the figures of a run go beside ``metrics.jsonl``: TensorBoard always, a tracker when asked."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from llavakit.base.dist import is_main
from llavakit.base.errors import BadRequest, nearest
from llavakit.train.stage import Recipe

Tracker = Literal["wandb", "trackio"]
TRACKERS: tuple[str, ...] = get_args(Tracker)


class Sink(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def require(trackers: Sequence[str]) -> None:
    """Raises :class:`BadRequest` for one that is not known or not installed."""
    for name in trackers:
        if name not in TRACKERS:
            raise BadRequest(f"no tracker {name!r}{nearest(name, TRACKERS)}; known: {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise BadRequest(f"{name} is not installed: pip install {name}")


class TensorBoard:
    """Event files of one stage. Those of steps that a resumed run takes again are purged by ``done``."""

    def __init__(self, directory: Path, done: int) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.writer import FileWriter

        self.proto: Any = summary_pb2.Summary
        # A file of its own: the names end in the second, and a run may be resumed within one.
        self.writer = FileWriter(str(directory), filename_suffix=f".{done}")
        if done:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self.writer.add_event(event_pb2.Event(session_log=start), done + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        # One event for all: one for each would take longer than a small model's step.
        self.writer.add_summary(self.proto(value=[{"tag": k, "simple_value": v} for k, v in values.items()]), step)

    def close(self) -> None:
        self.writer.close()


class Hosted:
    """A stage's figures in Weights & Biases or trackio, which have one interface. The run is the whole training's."""

    def __init__(self, tracker: str, stage: str, recipe: Recipe, out: Path) -> None:
        self.module: Any = importlib.import_module(tracker)
        self.stage = stage
        # The same name and id after an interruption: a resumed run goes on in the same curves.
        own = {"id": f"{recipe.hash()}-{out.name}", "dir": str(out)} if tracker == "wandb" else {}
        self.module.init(project=recipe.name, name=out.name, config=recipe.plain(), resume="allow", **own)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.module.log({f"{self.stage}/{key}": value for key, value in values.items()} | {f"{self.stage}/step": step})

    def close(self) -> None:
        self.module.finish()


def open_sinks(recipe: Recipe, stage: str, out: Path, done: int, trackers: Sequence[str]) -> list[Sink]:
    """What the first rank writes to, ``done`` steps of the stage being done; nothing on the others."""
    if not is_main():
        return []
    hosted = [Hosted(name, stage, recipe, out) for name in trackers]
    return [TensorBoard(out / "tensorboard" / stage, done), *hosted]
