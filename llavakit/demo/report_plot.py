"""Loss curves as what a page needs to draw them: SVG paths in a box of 100 by 100, and ticks in percent.

The page stretches the box to any width and sets the ticks' text in its own type, so labels keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llavakit.train.curve import running_mean

_POINTS = 320  # more than a panel has pixels to tell apart


@dataclass(frozen=True)
class Tick:
    """``at``: percent from the left or from the bottom."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """``first`` and ``last`` are of the running mean, which begins at the first loss."""

    name: str
    steps: int
    first: float
    last: float
    raw: str
    mean: str
    across: list[Tick]
    up: list[Tick]


def curve(name: str, steps: Sequence[int], losses: Sequence[float]) -> Curve:
    """The raw line and its running mean over steps from 0; both axes begin at zero. Losses that are not numbers
    (a run that broke) leave a gap in the raw line and end the mean."""
    x, y = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    mean = running_mean(y)
    finite = y[np.isfinite(y)]
    across, right = ticks(float(x.max()), 4)
    up, top = ticks(float(finite.max()) if finite.size else 1.0, 4)
    return Curve(
        name=name,
        steps=int(x.max()),
        first=float(mean[0]),
        last=float(mean[-1]),
        raw=path(*extremes(x, y), right, top),
        mean=path(*thinned(x, mean), right, top),
        across=across,
        up=up,
    )


def ticks(largest: float, number: int) -> tuple[list[Tick], float]:
    """About ``number`` round values from 0 up to ``largest``, and the end of the axis, a little beyond."""
    largest = largest if largest > 0 else 1.0
    rough = largest / number
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    end = largest * 1.02
    digits = max(0, -math.floor(math.log10(step)) + (round(step / unit, 1) == 2.5))
    count = math.floor(end / step + 1e-9)
    return [Tick(round(100 * n * step / end, 2), f"{n * step:,.{digits}f}") for n in range(count + 1)], end


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evenly chosen points, the first and the last among them."""
    if len(x) <= _POINTS:
        return x, y
    chosen = np.linspace(0, len(x) - 1, _POINTS).round().astype(int)
    return x[chosen], y[chosen]


def extremes(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest of every short span, in their order: thinning that hides no peak."""
    if len(x) <= _POINTS:
        return x, y
    spans = np.array_split(np.arange(len(x)), _POINTS // 2)
    kept = sorted({int(span[pick(y[span])]) for span in spans for pick in (np.argmin, np.argmax)})
    return x[kept], y[kept]


def path(x: np.ndarray, y: np.ndarray, right: float, top: float) -> str:
    """An SVG path, y upwards; a value that is not finite lifts the pen."""
    parts: list[str] = []
    down = False
    for across, up in zip(100 * x / right, 100 - 100 * y / top, strict=True):
        if math.isfinite(up):
            parts.append(f"{'L' if down else 'M'}{across:.2f} {up:.2f}")
        down = math.isfinite(up)
    return "".join(parts)
