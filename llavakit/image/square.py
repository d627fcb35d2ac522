"""Pad / crop / resize: a picture of any size -> the square that the vision tower sees, as bytes.

``pad``: LLaVA-1.5's instruction tuning and inference: padded to a square with the mean colour, then resized.
``crop``: its stage 1: shortest edge resized, centre cropped. ``squash``: resized, its proportions lost, as LLaVA-1.6
does with its global view and SigLIP always. All equal transformers' PIL image processors, unless ``decode="fast"`` is
asked for. Normalisation is left to :func:`normalise`, on the device: bytes are a quarter of the transport.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from llavakit.base.config import Config
from llavakit.image.fast import fast_square
from llavakit.image.spans import REACH, Mode, across, shortest_edge, touched, whole_pixels

if TYPE_CHECKING:
    import torch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


Decode = Literal["exact", "fast"]

MOST = 1 << 24
"""Pixels: a picture that would have more is never resized whole. One of 1x4000 would take over a gigabyte."""


class Square(Config):
    """How a picture becomes ``size`` x ``size`` pixels, and the tower's normalisation."""

    size: int
    mode: Mode = "pad"
    decode: Decode = "exact"
    """``fast``: JPEGs are decoded at a fraction of their size, no less than twice what is needed, and resized by
    torch: about one level of 255 away from ``exact``. Of training only; a checkpoint does not keep it."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def background(self) -> tuple[int, int, int]:
        """The mean colour in bytes, truncated as the original does: (122, 116, 104) for CLIP."""
        r, g, b = (int(value * 255) for value in self.mean)
        return r, g, b

    def fraction(self, width: int, height: int) -> int:
        """2, 4 or 8 where ``fast`` may decode a picture at that part of its size, else 1. Twice what it is resized to
        is left, and every edge, of the picture and of its square, stays where it was: half a pixel's shift would show.
        """
        margin = abs(width - height) // 2 if self.mode == "pad" else 0
        for part in (8, 4, 2):
            least = (max if self.mode == "pad" else min)(width, height) // part
            if least >= 2 * self.size and not (width % part or height % part or margin % part):
                return part
        return 1


def square(image: Image.Image, how: Square) -> np.ndarray:
    """An RGB picture -> uint8 ``[3, size, size]``."""
    if how.decode == "fast":
        return fast_square(image, how.mode, how.size, how.background)
    if how.mode == "squash":
        scaled = image.resize((how.size, how.size), Image.Resampling.BICUBIC)
    else:
        scaled = _padded(image, how.size, how.background) if how.mode == "pad" else _cropped(image, how.size)
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))


def normalise(pixels: torch.Tensor, how: Square, dtype: torch.dtype) -> torch.Tensor:
    """uint8 ``[n, 3, S, S]`` -> ``(pixels / 255 - mean) / std`` in ``dtype`` on the same device."""
    import torch

    mean = torch.tensor(how.mean, device=pixels.device).view(1, 3, 1, 1)
    scale = 1 / torch.tensor(how.std, device=pixels.device).view(1, 3, 1, 1)
    # One pass that also turns bytes into floats, and one in place.
    return (pixels * (scale / 255)).add_(-mean * scale).to(dtype)


def _padded(image: Image.Image, size: int, colour: tuple[int, int, int]) -> Image.Image:
    """The picture on a square of ``colour``, resized; nothing is computed where there is only colour. Bit for bit what
    resizing the whole square gives: Pillow too makes a pass over widths, rounds to bytes, and goes over heights. (Of
    tall pictures some versions do the heights first, so the two passes are two calls.)"""
    side, (width, height) = max(image.size), image.size
    if width == height:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if width > height:
        image = image.resize((size, height), Image.Resampling.BICUBIC)
    axis, inside = (1, height) if width > height else (0, width)
    above = (side - inside) // 2
    first, last, begin, end = touched(side, size, above, above + inside)
    reach = math.ceil(REACH * max(1.0, side / size)) + 1
    low, high = max(0, begin - reach), min(side, end + reach)
    strip = Image.new("RGB", across(axis, high - low, image.size), colour)
    strip.paste(image, across(axis, above - low, (0, 0)))
    if axis == 0:
        box = (begin - low, 0, end - low, height)
        part = strip.resize((last - first, height), Image.Resampling.BICUBIC, box)
        part = part.resize((last - first, size), Image.Resampling.BICUBIC)
    else:
        box = (0, begin - low, size, end - low)
        part = strip.resize((size, last - first), Image.Resampling.BICUBIC, box)
    if part.size == (size, size):
        return part
    whole = Image.new("RGB", (size, size), colour)
    whole.paste(part, across(axis, first, (0, 0)))
    return whole


def _cropped(image: Image.Image, size: int) -> Image.Image:
    """The middle of the picture whose shortest edge is resized to ``size``; what is cut away is not computed."""
    scaled = shortest_edge(*image.size, size)
    axis = 0 if image.width > image.height else 1
    cut = (scaled[axis] - size) // 2
    if axis == 1 and scaled[0] * scaled[1] <= MOST:
        # Which pass Pillow makes first depends on the sizes of a tall picture, so only the whole one is exact.
        return image.resize(scaled, Image.Resampling.BICUBIC).crop((0, cut, size, cut + size))
    first, last, begin, end = whole_pixels(image.size[axis], scaled[axis], cut, cut + size)
    box = across(axis, begin, (0, 0)) + across(axis, end, image.size)
    part = image.resize(across(axis, last - first, (size, size)), Image.Resampling.BICUBIC, box)
    corner = across(axis, cut - first, (0, 0))
    return part.crop((*corner, corner[0] + size, corner[1] + size))
