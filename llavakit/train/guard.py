"""Steps that must not count: a loss or gradient that is not finite, or a loss that leaps. Each is named with its
samples, and stops the run or is left out, as the recipe says."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from llavakit.base.config import Config
from llavakit.base.dist import fail, is_main, share
from llavakit.base.errors import WorkFailed
from llavakit.base.log import log
from llavakit.train.ledger import Ledger

WINDOW, ENOUGH = 64, 16
"""Steps that a loss is held against, and how many there must be before one is called a spike."""
PATIENCE = 10
"""Steps skipped one after another; then the run is no run any more."""
NAMED = 5


class Guard(Config):
    """What happens at an unsound step. ``spike``: how many times the median of the last losses is a spike."""

    not_finite: Literal["stop", "skip"] = "stop"
    spike: float = Field(3.0, gt=1)
    on_spike: Literal["warn", "skip", "stop"] = "warn"


class Watch:
    """Judges the steps of one stage. ``losses``: those of the steps that a resumed stage took before."""

    def __init__(self, guard: Guard, stage: str, losses: Iterable[float] = ()) -> None:
        self.guard = guard
        self.stage = stage
        self.recent = deque(losses, WINDOW)
        self.in_a_row = 0

    def judge(self, number: int, loss: float, norm: float, ledger: Ledger) -> tuple[str, bool]:
        """What is wrong with a step (empty where nothing is), and whether it is to be left out. The same on every rank,
        given the loss and gradient norm of them all. Raises :class:`WorkFailed` where the run is to stop."""
        why, action = self._verdict(loss, norm)
        if action != "skip":
            self.recent.append(loss)
            self.in_a_row = 0
        if not why:
            return "", False
        place = f"{self.stage}, step {number + 1}: {why}"
        said = f"{place}; samples: {_named(ledger)}"
        if action == "stop":
            fail(WorkFailed(f"{said}; lower the learning rate, look at them, or set guard to skip such steps"))
        if is_main():
            log.warning(f"{said}; the step is {'skipped' if action == 'skip' else 'taken all the same'}")
        self.in_a_row += action == "skip"
        if self.in_a_row == PATIENCE:
            fail(WorkFailed(f"{place}; it is the {PATIENCE}th in a row to be skipped, so the model is beyond recovery"))
        return why, action == "skip"

    def _verdict(self, loss: float, norm: float) -> tuple[str, str]:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss:.4g}, gradient norm {norm:.4g}", self.guard.not_finite
        if len(self.recent) >= ENOUGH and loss > self.guard.spike * (usual := statistics.median(self.recent)):
            return f"loss {loss:.4g}, {loss / usual:.1f} times the usual {usual:.4g}", self.guard.on_spike
        return "", ""


def _named(ledger: Ledger) -> str:
    """The samples of all ranks, the worst first."""
    examples = [(m, one.mean) for own in share(ledger.by_example()) for m, one in own]
    examples.sort(key=lambda item: -item[1] if math.isfinite(item[1]) else -math.inf)
    rest = f" and {len(examples) - NAMED} more" if len(examples) > NAMED else ""
    return ", ".join(f"{m.id} of {m.source} (loss {mean:.3g})" for m, mean in examples[:NAMED]) + rest
