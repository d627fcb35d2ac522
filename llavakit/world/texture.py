"""The background of a picture: a muted surface with a texture and the camera's noise."""

from __future__ import annotations

import numpy as np
from PIL import Image

from llavakit.world.scene import Background

_CELL = 0.09  # of the short side: what the textures repeat by


def surface(background: Background, size: tuple[int, int], short: float, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of ``size`` (width, height) pixels whose short side is ``short``."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None, :] / short
    y = np.arange(height, dtype=np.float32)[:, None] / short
    relief = _RELIEFS[background.texture](x, y, rng) * np.float32(11.0 if background.tone == "dark" else 14.0)
    if background.noise:
        relief = relief + rng.standard_normal((height, width), dtype=np.float32) * np.float32(background.noise)
    level = np.asarray(background.tint, dtype=np.float32)
    pixels = np.clip(relief[..., None] + level, 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3))))


def _plain(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)


def _shaded(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.float32(np.cos(angle)) * (x - x.mean()) + np.float32(np.sin(angle)) * (y - y.mean())
    return ramp / np.abs(ramp).max() * np.float32(2.0)


def _speckled(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cell = _CELL / 3
    grid = rng.random((int(y[-1, 0] / cell) + 1, int(x[0, -1] / cell) + 1))
    specks = np.select([grid < 0.1, grid > 0.9], [-1.6, 1.6], 0.0).astype(np.float32)
    return specks[(y / cell).astype(int), (x / cell).astype(int)]


def _checked(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ((x / _CELL).astype(int) + (y / _CELL).astype(int)) % 2 * np.float32(1.4) - np.float32(0.7)


def _gridded(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    line = np.maximum(x % _CELL < 0.14 * _CELL, y % _CELL < 0.14 * _CELL)
    return line * np.float32(-1.6)


def _woven(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    wave = np.float32(2 * np.pi / (_CELL * 0.7))
    return np.sin(wave * (x + y)) * np.sin(wave * (x - y)) * np.float32(1.3)


_RELIEFS = {
    "plain": _plain,
    "shaded": _shaded,
    "speckled": _speckled,
    "checked": _checked,
    "gridded": _gridded,
    "woven": _woven,
}
