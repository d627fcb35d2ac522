"""Which pixels a resized picture reads, axis by axis."""

from __future__ import annotations

import math
from typing import Literal

Mode = Literal["pad", "crop", "squash"]

REACH = 2
"""Source pixels (output pixels, where it enlarges) to each side of a pixel that Pillow's bicubic filter reads."""


def shortest_edge(width: int, height: int, size: int) -> tuple[int, int]:
    """The picture's size when its shortest edge is ``size``."""
    # int(), not round(): transformers' get_resize_output_image_size truncates.
    long = int(size * max(width, height) / min(width, height))
    return (size, long) if width <= height else (long, size)


def touched(length: int, out: int, begin: int, end: int) -> tuple[int, int, int, int]:
    """:func:`whole_pixels` of the output pixels that read any of source pixels [begin, end)."""
    scale = length / out
    reach = REACH * max(1.0, scale)
    first = max(0, math.floor((begin - reach) / scale - 0.5))
    return whole_pixels(length, out, first, min(out, math.ceil((end + reach) / scale + 0.5)))


def whole_pixels(length: int, out: int, first: int, last: int) -> tuple[int, int, int, int]:
    """Output pixels [first, last) of ``length`` source pixels resized to ``out``, and some more so that they begin and
    end between two source pixels, and where: (first, last, begin, end). Pillow keeps a box in floats of 32 bits, and
    at a broken place in a picture its weights would be others than those of the whole."""
    steps = math.gcd(length, out)
    each = out // steps
    start, stop = first // each, -(-last // each)
    return start * each, stop * each, start * (length // steps), stop * (length // steps)


def across(axis: int, value: int, pair: tuple[int, int]) -> tuple[int, int]:
    """``pair`` with ``value`` on one axis."""
    return (value, pair[1]) if axis == 0 else (pair[0], value)
