"""Pixel values: files of every mode, read and made square by us and by transformers' own loader and PIL processors."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import row, scratch
from llavakit.image.open import open_image
from llavakit.image.square import Mode, Square, normalise, square
from llavakit.model.preprocessor import preprocessor_config

KINDS = ("RGB", "L", "P", "RGBA", "CMYK", "EXIF-rotated", "1 px high")


def noise(width: int, height: int) -> Image.Image:
    """A picture of random smooth patches with some noise; always the same one for a size."""
    rng = np.random.default_rng(width * 10_000 + height)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    return Image.fromarray((smooth + rng.integers(-40, 41, smooth.shape)).clip(0, 255).astype(np.uint8))


def save(folder: Path, kind: str, width: int, height: int) -> Path:
    """A file of that kind in its true format."""
    path = folder / f"{kind}-{width}x{height}.{'jpg' if kind in ('CMYK', 'EXIF-rotated') else 'png'}"
    if kind == "EXIF-rotated":
        exif = Image.Exif()
        exif[0x0112] = 2 + (width + height) % 7  # one of the seven that are not upright
        noise(width, height).save(path, exif=exif)
    elif kind == "1 px high":
        noise(width, 1).save(path)
    elif kind == "RGBA":
        image = noise(width, height).convert("RGBA")
        image.putalpha(noise(height, width).convert("L").resize((width, height)))
        image.save(path)
    else:
        noise(width, height).convert(kind).save(path)
    return path


@functools.cache
def sixty() -> tuple[Path, ...]:
    folder = scratch() / "sixty"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 500, (60, 2)).tolist()
    return tuple(save(folder, KINDS[i % len(KINDS)], *size) for i, size in enumerate(sizes))


def pixel_difference(path: Path, how: Square) -> float:
    """Worst difference before normalisation, in 1 = white; theirs is the processor that a checkpoint of ours names."""
    from transformers import CLIPImageProcessorPil
    from transformers.image_utils import load_image
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    config = preprocessor_config(how)
    kind = {"LlavaImageProcessor": LlavaImageProcessorPil, "CLIPImageProcessor": CLIPImageProcessorPil}[
        config.pop("image_processor_type")
    ]
    theirs = kind(**config)(load_image(str(path)), return_tensors="pt")["pixel_values"]
    ours = normalise(torch.from_numpy(square(open_image(path), how))[None], how, torch.float32)
    deviation = torch.tensor(how.std).view(1, 3, 1, 1)
    return float(((ours - theirs) * deviation).abs().max())


def _worst(mode: Mode) -> float:
    sizes = itertools.cycle((224, 336))
    return max(pixel_difference(path, Square(size=size, mode=mode)) for path, size in zip(sixty(), sizes, strict=False))


@row("pixels, pad, 60 pictures of 7 kinds", against="transformers' LlavaImageProcessor", bound=1 / 255)
def pad() -> float:
    return _worst("pad")


@row("pixels, crop, 60 pictures of 7 kinds", against="transformers' CLIPImageProcessor", bound=1 / 255)
def crop() -> float:
    return _worst("crop")


@row("pixels, squash, 60 pictures of 7 kinds", against="transformers' CLIPImageProcessor", bound=1 / 255)
def squash() -> float:
    return _worst("squash")
