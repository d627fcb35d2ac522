"""Boxes in answers: the first one of a text, and a picture's box in the padded square."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llavakit.eval.metrics import Box

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")


def first_box(text: str) -> Box | None:
    """The first four numbers in brackets, None where there are none."""
    found = _BOX.search(text)
    return (float(found[1]), float(found[2]), float(found[3]), float(found[4])) if found else None


def squared(box: Sequence[float], width: int, height: int) -> Box:
    """A box ``(x1, y1, x2, y2)`` in pixels as shares of the picture padded to a square, itself in the middle.

    The padding is whole pixels, the left and upper one rounded down, as the picture is padded.
    """
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return (box[0] + left) / side, (box[1] + top) / side, (box[2] + left) / side, (box[3] + top) / side
