"""The background of a picture: a muted surface with a texture and the camera's noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from llavakit.world.scene import Background

_CELL = 0.09  # of the short side: what the textures repeat by


def surface(background: Background, size: tuple[int, int], short: float, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of ``size`` (width, height) pixels whose short side is ``short``."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None, :] / np.float32(short)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(short)
    relief = _RELIEFS[background.texture](x, y, rng) * np.float32(11.0 if background.tone == "dark" else 14.0)
    if background.noise:
        relief += rng.standard_normal((height, width), dtype=np.float32) * np.float32(background.noise)
    # One channel of relief around 128; a table a colour channel adds the tint, three times faster than numpy.
    level = Image.fromarray((relief + np.float32(128.5)).astype(np.uint8))
    tables = [np.clip(np.arange(-128, 128) + tint, 0, 255).tolist() for tint in background.tint]
    return Image.merge("RGB", [level.point(table) for table in tables])


Field = np.ndarray[Any, Any]
"""float32 ``[height, width]`` (``x``: ``[1, width]``, ``y``: ``[height, 1]``), in short sides or units of relief."""


def _plain(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)


def _shaded(x: Field, y: Field, rng: np.random.Generator) -> Field:
    angle = rng.uniform(0, 2 * np.pi)
    ramp: Field = np.float32(np.cos(angle)) * (x - x.mean()) + np.float32(np.sin(angle)) * (y - y.mean())
    scale = np.float32(2.0) / np.abs(ramp).max()
    return np.asarray(ramp * scale)


def _speckled(x: Field, y: Field, rng: np.random.Generator) -> Field:
    cell = _CELL / 3
    rows, columns = (y / cell).astype(int), (x / cell).astype(int)
    grid = rng.random((int(rows.max()) + 1, int(columns.max()) + 1))
    specks: Field = np.select([grid < 0.1, grid > 0.9], [-1.6, 1.6], 0.0).astype(np.float32)
    laid: Field = specks[rows, columns]
    return laid


def _checked(x: Field, y: Field, rng: np.random.Generator) -> Field:
    odd = ((x / _CELL).astype(np.int32) + (y / _CELL).astype(np.int32)) % 2
    return odd.astype(np.float32) * np.float32(1.4) - np.float32(0.7)


def _gridded(x: Field, y: Field, rng: np.random.Generator) -> Field:
    line = np.maximum(x % _CELL < 0.14 * _CELL, y % _CELL < 0.14 * _CELL)
    return line.astype(np.float32) * np.float32(-1.6)


def _woven(x: Field, y: Field, rng: np.random.Generator) -> Field:
    wave = np.float32(2 * np.pi / (_CELL * 0.7))
    across, along = np.sin(wave * x), np.sin(wave * y)
    # sin(a + b) sin(a - b) = sin(a)^2 - sin(b)^2: two rows of sines instead of two pictures of them.
    woven: Field = (across**2 - along**2) * np.float32(1.3)
    return woven


_RELIEFS: dict[str, Callable[[Field, Field, np.random.Generator], Field]] = {
    "plain": _plain,
    "shaded": _shaded,
    "speckled": _speckled,
    "checked": _checked,
    "gridded": _gridded,
    "woven": _woven,
}
