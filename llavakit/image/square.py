"""Pad / crop / resize: a picture of any size -> the square that the vision tower sees, as bytes.

``pad``: LLaVA-1.5's instruction tuning and inference: padded to a square with the mean colour, then resized.
``crop``: its stage 1: shortest edge resized, centre cropped. ``squash``: resized, its proportions lost, as LLaVA-1.6
does with its global view and SigLIP always. All equal transformers' PIL image processors.
Normalisation is left to :func:`normalise`, on the device: bytes are a quarter of the transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from llavakit.base.config import Config

if TYPE_CHECKING:
    import torch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


Mode = Literal["pad", "crop", "squash"]


class Square(Config):
    """How a picture becomes ``size`` x ``size`` pixels, and the tower's normalisation."""

    size: int
    mode: Mode = "pad"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def background(self) -> tuple[int, int, int]:
        """The mean colour in bytes, truncated as the original does: (122, 116, 104) for CLIP."""
        r, g, b = (int(value * 255) for value in self.mean)
        return r, g, b


def square(image: Image.Image, how: Square) -> np.ndarray:
    """An RGB picture -> uint8 ``[3, size, size]``."""
    if how.mode == "squash":
        scaled = image.resize((how.size, how.size), Image.Resampling.BICUBIC)
    else:
        image = _pad(image, how.background) if how.mode == "pad" else image
        scaled = _resize_shortest(image, how.size)
        left, top = (scaled.width - how.size) // 2, (scaled.height - how.size) // 2
        scaled = scaled.crop((left, top, left + how.size, top + how.size))
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))


def normalise(pixels: torch.Tensor, how: Square, dtype: torch.dtype) -> torch.Tensor:
    """uint8 ``[n, 3, S, S]`` -> ``(pixels / 255 - mean) / std`` in ``dtype`` on the same device."""
    import torch

    mean = torch.tensor(how.mean, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(how.std, device=pixels.device).view(1, 3, 1, 1) * 255
    return ((pixels.float() - mean) / std).to(dtype)


def _pad(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    if image.width == image.height:
        return image
    side = max(image.size)
    padded = Image.new("RGB", (side, side), colour)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def _resize_shortest(image: Image.Image, size: int) -> Image.Image:
    short, long = min(image.size), max(image.size)
    # int(), not round(): transformers' get_resize_output_image_size truncates.
    scaled = int(size * long / short)
    target = (size, scaled) if image.width <= image.height else (scaled, size)
    return image if image.size == target else image.resize(target, Image.Resampling.BICUBIC)
