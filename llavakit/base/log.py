"""One logger, one metrics line, progress bars, aligned tables. Everything a person reads goes to standard error;
standard output is for results."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llavakit.base.dist import is_main

log = logging.getLogger("llavakit")
"""Message lines on standard error. Under torchrun only the first rank speaks, but every rank warns."""


class _Lines(logging.Handler):
    """Finds ``sys.stderr`` anew for every line, and writes above a progress bar that is being drawn, not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            tqdm = sys.modules.get("tqdm")
            if tqdm is not None and sys.stderr.isatty():
                tqdm.tqdm.write(line, file=sys.stderr)
            else:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
        except Exception:  # as every handler of the standard library: logging never ends the work
            self.handleError(record)


if not log.handlers:
    _handler = _Lines()
    _handler.addFilter(lambda record: record.levelno >= logging.WARNING or is_main())
    log.addHandler(_handler)
    log.setLevel(logging.INFO)
    log.propagate = False


row = 0
"""Of this process's progress bars: one that works beside another draws its own a line lower."""


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, desc: str = "", unit: str = "it"
) -> Any:
    """A tqdm bar on standard error; silent where that is no terminal, and on all ranks but the first."""
    from tqdm import tqdm

    silent = not (sys.stderr.isatty() and is_main())
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        disable=silent,
        leave=False,
        dynamic_ncols=True,
        position=row or None,
    )


Clock = Callable[[str], contextlib.AbstractContextManager[None]]
"""What a long piece of work enters for each of its phases, by name."""


def untimed(phase: str) -> contextlib.AbstractContextManager[None]:
    """The clock of work that nobody times."""
    return contextlib.nullcontext()


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """``{"step": 20, "loss": 1.23456}`` as ``step     20  loss  1.235``: lines of the same keys stand in columns."""
    return "  ".join(f"{key} {_short(value):>6}" for key, value in metrics.items())


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Aligned plain text; a column of numbers is aligned to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = [bool(rows) and all(_NUMBER.fullmatch(row[i].strip()) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


# A number with separators, an exponent and a short unit ("1,024", "-2e-5", "80 GiB", "61.3%"), or its absence.
_NUMBER = re.compile(r"[-+~]?\$?\d[\d,_]*(\.\d+)?([eE][-+]?\d+)?(\s?[%a-zA-Z/]{1,8})?|[-+]?(inf|nan)|-|n/a|")


def _short(value: Any) -> str:
    """Four digits of a float, so that neither 1e-5 nor 12345.6 breaks the column."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
