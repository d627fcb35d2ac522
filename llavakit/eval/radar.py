"""A radar picture as what a page needs to draw it: SVG points around (0, 0), the rim at 100."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spoke:
    """``x``, ``y``: the rim; ``label_x``, ``label_y``: where its label stands, ``anchor`` and on which side of it."""

    title: str
    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True)
class Radar:
    """``shapes``: name -> the points of a polygon; a score that is not there leaves it out."""

    spokes: list[Spoke]
    rings: list[str]
    shapes: dict[str, str]


def radar(titles: Mapping[str, str], scores: Mapping[str, Mapping[str, float]]) -> Radar | None:
    """``titles``: spoke -> label, clockwise from the top; ``scores``: name -> spoke -> score. The middle is zero, the
    rim the best of all that is drawn. None for fewer than three spokes, which make no shape."""
    if len(titles) < 3:
        return None
    angles = {key: 2 * math.pi * n / len(titles) - math.pi / 2 for n, key in enumerate(titles)}
    best = {key: max([own[key] for own in scores.values() if key in own], default=0.0) or 1.0 for key in titles}
    spokes = []
    for key, angle in angles.items():
        x, y = math.cos(angle), math.sin(angle)
        anchor = "middle" if abs(x) < 0.2 else "start" if x > 0 else "end"
        rim, label = (round(100 * x, 2), round(100 * y, 2)), (round(108 * x, 2), round(110 * y + 3, 2))
        spokes.append(Spoke(titles[key], *rim, *label, anchor))
    rings = [_points([(share, angle) for angle in angles.values()]) for share in (0.25, 0.5, 0.75, 1.0)]
    shapes = {
        name: _points([(max(0.0, own[key]) / best[key], angles[key]) for key in titles if key in own])
        for name, own in scores.items()
    }
    return Radar(spokes, rings, shapes)


def _points(polar: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{100 * r * math.cos(angle):.2f},{100 * r * math.sin(angle):.2f}" for r, angle in polar)
