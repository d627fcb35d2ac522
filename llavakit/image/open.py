"""Any picture file a person has -> an upright RGB picture, within limits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from llavakit.base.errors import BadRecord

MAX_PIXELS = 100_000_000


def open_image(
    source: str | Path | bytes | Any,
    where: str = "",
    max_pixels: int = MAX_PIXELS,
    fraction: Callable[[int, int], int] | None = None,
) -> Image.Image:
    """Opens a path, encoded bytes, a function that gives them, or a ``PIL.Image`` as RGB, uint8, EXIF orientation
    applied.

    Palette, 16-bit, CMYK and alpha pictures become RGB (alpha is dropped, as transformers does); an animation gives
    its first frame. With ``fraction`` a JPEG is decoded at the half, quarter or eighth of its size that
    ``fraction(width, height)`` says. Raises :class:`BadRecord` for a missing, truncated or unreadable file and for more
    than ``max_pixels`` pixels.
    """
    if callable(source):
        source = source()
    place = _place(source, where)
    check_there(source, where)
    try:
        with warnings.catch_warnings():
            # We refuse by our own limit below, before any pixel is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                image = source
            else:
                image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        if image.width * image.height > max_pixels:
            raise BadRecord(f"{image.width}x{image.height} is over the limit of {max_pixels:,} pixels", place)
        if fraction is not None and (part := fraction(*image.size)) > 1:
            image.draft(None, (image.width // part, image.height // part))  # nothing but JPEG has it
        image.load()
        if image is source:
            return _rgb(ImageOps.exif_transpose(image))  # the caller's own stays as it is
        ImageOps.exif_transpose(image, in_place=True)  # the other way copies even what is upright
        return _rgb(image)
    except Image.DecompressionBombError:
        raise BadRecord(f"is over the limit of {max_pixels:,} pixels", place) from None
    except UnidentifiedImageError:
        raise BadRecord("is not a picture of a known format", place) from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise on damaged data
        raise BadRecord(f"cannot be read ({error})", place) from None


def check_there(source: str | Path | bytes | Any, where: str = "") -> None:
    """Raises :class:`BadRecord` for a path at which there is no file."""
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise BadRecord("no such file", _place(source, where))


def _place(source: Any, where: str) -> str:
    name = source.filename if hasattr(source, "filename") and source.filename else source
    shown = f"image {name}" if isinstance(name, (str, Path)) else "image"
    return f"{where}: {shown}" if where else shown


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # convert("RGB") clips 16-bit values at 255 and gives a white picture.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    return image.convert("RGB")
