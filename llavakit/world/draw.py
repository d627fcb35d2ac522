"""Scene -> picture, at any resolution: supersampled shapes pasted through their masks on a textured background."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from llavakit.world import letters
from llavakit.world.scene import Inscription, Scene, Thing
from llavakit.world.shapes import RING_HOLE, outline
from llavakit.world.texture import surface

_FINE = 4  # supersampling within a thing's own patch

INKS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 38),
    "green": (30, 160, 60),
    "blue": (40, 90, 230),
    "yellow": (250, 222, 30),
    "purple": (150, 50, 190),
    "orange": (250, 132, 16),
    "white": (252, 252, 252),
}
_DARK_TEXT, _LIGHT_TEXT = (16, 16, 20), (238, 238, 232)
_OUTLINE = 0.009  # of the short side
_PERIOD = {"small": 0.038, "large": 0.056}  # of stripes and dots, in short sides: 4-6 px at 112, lost at 56


def draw(scene: Scene, side: int) -> Image.Image:
    """The RGB picture of ``scene``, its longest side ``side`` pixels. Pixels depend on (scene, side) alone."""
    w, h = scene.extents()
    short = side / max(w, h)
    size = round(short * w), round(short * h)
    picture = surface(scene.background, size, short, np.random.default_rng(scene.seed))
    for item in scene.items:
        at = item.x * size[0], item.y * size[1]
        if isinstance(item, Thing):
            _draw_thing(picture, item, at, short)
        elif isinstance(item, Inscription):
            _draw_text(picture, item, at, short, scene.background.tone)
    return picture


def _draw_thing(picture: Image.Image, thing: Thing, at: tuple[float, float], short: float) -> None:
    extent = thing.extent * short
    left, top = math.floor(at[0] - extent / 2) - 1, math.floor(at[1] - extent / 2) - 1
    side = math.ceil(extent) + 4
    middle = (at[0] - left) * _FINE, (at[1] - top) * _FINE

    def points(scale: float) -> list[tuple[float, float]]:
        return [(middle[0] + x * scale, middle[1] + y * scale) for x, y in outline(thing.shape, thing.tilt)]

    fine = extent * _FINE
    body = _mask(side, points(fine))
    if thing.shape == "ring":
        ImageDraw.Draw(body).polygon(points(fine * RING_HOLE), fill=0)
    colour = tuple(min(255, round(value * thing.shade)) for value in INKS[thing.colour])
    dark = tuple(round(value * 0.36) for value in colour)
    patch = Image.new("RGB", body.size, colour)
    pen = ImageDraw.Draw(patch)
    _draw_pattern(pen, thing, body.width, middle, _PERIOD[thing.size] * short * _FINE, dark)
    joint = None if thing.shape in ("circle", "ring") else "curve"  # 72 round joints cost more than all the rest
    edge = max(1, round(2 * _OUTLINE * short * _FINE))
    # The line's outer half falls outside the mask and is cut off with it.
    for ring in [points(fine), *([points(fine * RING_HOLE)] if thing.shape == "ring" else [])]:
        pen.line([*ring, ring[0], ring[1]], fill=dark, width=edge, joint=joint)
    picture.paste(patch.reduce(_FINE), (left, top), body.reduce(_FINE))


def _draw_pattern(
    pen: ImageDraw.ImageDraw,
    thing: Thing,
    side: int,
    middle: tuple[float, float],
    period: float,
    dark: tuple[int, ...],
) -> None:
    """Upright stripes or a lattice of dots over a whole patch of ``side`` fine pixels, centred on the thing."""
    reach = math.ceil(side / period)
    if thing.pattern == "striped":
        half = period * 0.2
        for k in range(-reach, reach + 1):
            # Half a period off the middle, so that a narrow upright arm keeps its colour. Slanted stripes would
            # survive at half the resolution, where these and the dots are to melt.
            x = middle[0] + (k + 0.5) * period
            pen.rectangle((x - half, 0, x + half, side), fill=dark)
    elif thing.pattern == "dotted":
        radius = period * 0.35  # dots cover as much as stripes: only detail tells them apart
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                x, y = middle[0] + i * period, middle[1] + j * period
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=dark)


def _draw_text(picture: Image.Image, text: Inscription, at: tuple[float, float], short: float, tone: str) -> None:
    size = max(1, round(text.width * short)), max(1, round(text.height * short))
    ink = letters.mask(text.text).resize(size, Image.Resampling.BOX if size[1] > 40 else Image.Resampling.LANCZOS)
    corner = round(at[0] - size[0] / 2), round(at[1] - size[1] / 2)
    picture.paste(_DARK_TEXT if tone == "light" else _LIGHT_TEXT, corner, ink)


def _mask(side: int, points: list[tuple[float, float]]) -> Image.Image:
    mask = Image.new("L", (side * _FINE, side * _FINE))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask
