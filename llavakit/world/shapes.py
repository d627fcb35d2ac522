"""The outline of each shape, in a frame whose larger side is 1. Truth (boxes) and drawing both come from here."""

from __future__ import annotations

import functools
import math

Points = tuple[tuple[float, float], ...]

RING_HOLE = 0.42  # diameter of a ring's hole over the ring's
_ARM = 0.38  # width of a cross's arm over its length
_STAR_WAIST = 0.48  # inner over outer radius: fat enough to show a pattern


def _turned(point: tuple[float, float], degrees: float) -> tuple[float, float]:
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return point[0] * cos - point[1] * sin, point[0] * sin + point[1] * cos


def _round() -> Points:
    return tuple((math.cos(t * math.tau / 72), math.sin(t * math.tau / 72)) for t in range(72))


def _star() -> Points:
    radii = [1.0 if i % 2 == 0 else _STAR_WAIST for i in range(10)]
    return tuple((r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii))


def _cross() -> Points:
    a = _ARM
    quarter = ((a, -1.0), (a, -a), (1.0, -a))
    return tuple(p for turn in range(4) for p in (_turned(q, 90.0 * turn) for q in quarter))


_OUTLINES: dict[str, Points] = {
    "circle": _round(),
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle": ((0, -1), (math.sqrt(0.75), 0.5), (-math.sqrt(0.75), 0.5)),
    "star": _star(),
    "cross": _cross(),
    "ring": _round(),
}


@functools.cache
def outline(shape: str, tilt: int) -> Points:
    """Corners of ``shape`` turned by ``tilt`` degrees, its bounding box centred at (0, 0) with larger side 1."""
    points = [_turned(point, float(tilt)) for point in _OUTLINES[shape]]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    scale = 1 / max(max(xs) - min(xs), max(ys) - min(ys))
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return tuple(((x - middle[0]) * scale, (y - middle[1]) * scale) for x, y in points)


@functools.cache
def span(shape: str, tilt: int) -> tuple[float, float]:
    """Width and height of the outline's bounding box; the larger is 1."""
    points = outline(shape, tilt)
    return 2 * max(x for x, _ in points), 2 * max(y for _, y in points)
