"""Printed text as masks, in the sans-serif font that Pillow carries, made bold by a stroke."""

from __future__ import annotations

import functools

from PIL import Image, ImageDraw, ImageFont

_SIZE = 96
_STROKE = 4
_SPACING = 10  # pixels between letters: at 8 px a letter they must not run together


@functools.cache
def mask(text: str) -> Image.Image:
    """``text`` (capitals or digits) as a tight, large L picture: 255 is ink."""
    font = ImageFont.load_default(_SIZE)
    canvas = Image.new("L", (_SIZE * (len(text) + 1), 2 * _SIZE))
    draw, x = ImageDraw.Draw(canvas), float(_SIZE // 4)
    for letter in text:
        draw.text((x, _SIZE // 4), letter, fill=255, font=font, stroke_width=_STROKE)
        x += font.getlength(letter) + _SPACING
    return canvas.crop(canvas.getbbox())


@functools.cache
def aspect(text: str) -> float:
    """Width over height of the printed text."""
    width, height = mask(text).size
    return width / height
