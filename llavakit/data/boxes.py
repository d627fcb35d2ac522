"""Boxes as the published data writes them: shares of the picture padded to a square, two decimals."""

from __future__ import annotations

from typing import NamedTuple

Box = tuple[float, float, float, float]


class Region(NamedTuple):
    """A box in pixels of the picture, from its top left corner, and what is in it."""

    x: float
    y: float
    width: float
    height: float
    phrase: str


def padded_square(region: Region, width: float, height: float) -> Box:
    """(x1, y1, x2, y2) in 0..1 of the square that the picture of ``width`` x ``height`` pixels stands in the middle of.

    Clipped to the picture: annotations reach over its edge by a pixel here and there."""
    side = max(width, height)
    # Whole pixels, as image.square pads: half of an odd difference is rounded down.
    left, top = (side - width) // 2, (side - height) // 2
    x1, x2 = (min(max(x, 0), width) for x in (region.x, region.x + region.width))
    y1, y2 = (min(max(y, 0), height) for y in (region.y, region.y + region.height))
    return (left + x1) / side, (top + y1) / side, (left + x2) / side, (top + y2) / side


def as_text(box: Box) -> str:
    """ "[0.1, 0.25, 0.5, 1.0]": rounded to two decimals, as Python prints the numbers."""
    return "[" + ", ".join(str(round(value, 2)) for value in box) + "]"
