"""A picture's URL -> its encoded bytes, checked before any pixel is decoded. Local paths are never read."""

from __future__ import annotations

import base64
import binascii
import io
import warnings

from PIL import Image, UnidentifiedImageError

from llavakit.base.config import Config
from llavakit.serve.fetch import fetch
from llavakit.serve.refuse import Refused

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Never Pillow's whole list: some of its decoders start other programs, or are hardly ever looked at."""


class PictureLimits(Config):
    """What is taken of pictures."""

    images: int = 16
    """In one request."""
    bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    remote: bool = False
    """Whether https URLs are fetched. Off: a request then cannot make this server open a connection."""
    seconds: float = 10.0
    """For all of fetching one picture."""


async def picture(url: str, limits: PictureLimits) -> bytes:
    """The bytes of a picture. Raises :class:`Refused`: 400 for a wrong URL or no picture, 413 over a limit."""
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "data":
        data = _data(rest, limits)
    elif scheme.lower() == "https" and limits.remote:
        data = await fetch(url, limits.bytes, limits.seconds)
    elif scheme.lower() in ("http", "https"):
        hint = "only https is fetched" if limits.remote else "this server fetches no remote pictures"
        raise Refused(400, f"{hint}; send the picture as a data URL", "invalid_image_url")
    else:
        raise Refused(400, "a picture is a data URL: data:image/png;base64,...", "invalid_image_url")
    _check(data, limits)
    return data


def _data(rest: str, limits: PictureLimits) -> bytes:
    head, comma, text = rest.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise Refused(400, "a data URL is data:image/png;base64,...", "invalid_image_url")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "the picture's base64 is damaged", "invalid_base64_image") from None


def _check(data: bytes, limits: PictureLimits) -> None:
    """Reads the header alone: a bomb of a few bytes must not get as far as a decoder."""
    if len(data) > limits.bytes:
        raise Refused(413, f"the picture has more than {limits.bytes:,} bytes", "image_too_large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = limits.pixels + 1
    except UnidentifiedImageError:
        raise Refused(400, f"is no picture of a known format ({', '.join(FORMATS)})", "invalid_image_format") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's readers raise on damaged data
        raise Refused(400, f"the picture cannot be read ({error})", "invalid_image") from None
    if pixels > limits.pixels:
        raise Refused(413, f"the picture has more than {limits.pixels:,} pixels", "image_too_large")
