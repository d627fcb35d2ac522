"""Squares by torch's resizing of bytes: several times Pillow's speed, and at most one level away from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from llavakit.image.spans import REACH, Mode, across, shortest_edge, whole_pixels

if TYPE_CHECKING:
    import torch


def fast_square(image: Image.Image, mode: Mode, size: int, background: tuple[int, int, int]) -> np.ndarray:
    """An RGB picture -> uint8 ``[3, size, size]``, as ``square`` of :mod:`llavakit.image.square` makes it."""
    if mode == "squash":
        pixels = _resize(_pixels(image), size, size)
    elif mode == "crop":
        pixels = _cropped(image, size)
    else:
        pixels, side = _pixels(image), max(image.size)
        if image.width > image.height:
            pixels = _resize(pixels, size, image.height)  # before there are rows of mere colour
        pixels = _resize(_centred(pixels, side, background), size, size)
    return pixels[0].contiguous().numpy()


def _pixels(image: Image.Image) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def _resize(pixels: torch.Tensor, width: int, height: int) -> torch.Tensor:
    import torch

    return torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)


def _cropped(image: Image.Image, size: int) -> torch.Tensor:
    scaled = shortest_edge(*image.size, size)
    axis = 0 if image.width > image.height else 1
    length, out = image.size[axis], scaled[axis]
    cut = (out - size) // 2
    # What is cut off must not be missed by the filter: some output pixels more to either side.
    more = math.ceil(REACH * max(1.0, out / length)) + 1
    first, last, begin, end = whole_pixels(length, out, max(0, cut - more), min(out, cut + size + more))
    part = image.crop((*across(axis, begin, (0, 0)), *across(axis, end, image.size)))
    return _resize(_pixels(part), *across(axis, last - first, (size, size))).narrow(3 - axis, cut - first, size)


def _centred(pixels: torch.Tensor, side: int, colour: tuple[int, int, int]) -> torch.Tensor:
    """uint8 ``[1, 3, h, w]`` amid ``colour``: ``side`` rows, and as many columns where it had fewer than rows."""
    import torch

    height, width = pixels.shape[2:]
    rows, columns = (side, width) if height < side else (side, side)
    if (height, width) == (rows, columns):
        return pixels
    # Repeated bytes: setting [:] to a colour takes as long as all the rest.
    filled = torch.frombuffer(bytearray(bytes(colour) * (rows * columns)), dtype=torch.uint8)
    whole = filled.view(1, rows, columns, 3).permute(0, 3, 1, 2)
    top, left = (rows - height) // 2, (columns - width) // 2
    whole[..., top : top + height, left : left + width] = pixels
    return whole
