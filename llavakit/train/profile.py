"""A trace of some steps, for https://ui.perfetto.dev (or chrome://tracing)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from llavakit.base.dist import is_main
from llavakit.base.errors import BadRequest
from llavakit.base.files import writing
from llavakit.base.log import log


@dataclass(frozen=True)
class Window:
    """Steps ``first`` to ``last`` of every stage, counted from 1, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """``"3:5"``. Raises :class:`BadRequest` for anything else."""
        found = re.fullmatch(r"(\d+):(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise BadRequest(f"--profile {text!r} is not FIRST:LAST, two steps counted from 1, as 3:5")
        return cls(int(found[1]), int(found[2]))


class Profiler:
    """Traces the first rank's steps of one stage that lie in ``window``; does nothing without one."""

    def __init__(self, window: Window | None, out: Path, stage: str) -> None:
        self.window = window if is_main() else None
        self.out = out
        self.stage = stage
        self._running: torch.profiler.profile | None = None

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Within it is step ``number`` (from 1)."""
        window = self.window
        if window is None or not window.first <= number <= window.last:
            yield
            return
        if self._running is None:
            self._running = torch.profiler.profile(record_shapes=True, profile_memory=True)
            self._running.start()
        with torch.profiler.record_function(f"{self.stage} step {number}"):
            yield
        if number == window.last:
            self.close()

    def close(self) -> None:
        """Writes what was traced, also where the stage ended before the window did."""
        if self._running is None or self.window is None:
            return
        profile, self._running = self._running, None
        profile.stop()
        path = self.out / "profile" / f"{self.stage}-{self.window.first}-{self.window.last}.json.gz"
        with writing(path) as temporary:
            # Its ending decides whether it is compressed.
            named = temporary.with_name(f"{temporary.name}.gz")
            profile.export_chrome_trace(str(named))
            named.rename(temporary)
        log.info(f"trace of {self.stage}: {path} (open it at https://ui.perfetto.dev)")
