"""A picture as the ``data:`` address in which models behind an endpoint take it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from llavakit.base.errors import BadRecord
from llavakit.image.open import open_image

# As every endpoint reads them. Their bytes go as they are: encoded anew, the same picture would be another question.
SENT_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
LIMIT = 20_000_000  # bytes


def data_url(source: str | Path | bytes | Any) -> str:
    """``data:image/jpeg;base64,...`` of a path, encoded bytes or a ``PIL.Image``. A format that endpoints do not read
    is sent as PNG, and so is a picture without a file.

    Raises :class:`BadRecord` for a file that is missing, damaged, no picture, or over :data:`LIMIT` bytes.
    """
    picture = open_image(source)  # whole and readable, or it raises: an endpoint would charge for finding out
    data = Path(source).read_bytes() if isinstance(source, (str, Path)) else source
    kind = None
    if isinstance(data, bytes):
        with Image.open(io.BytesIO(data)) as opened:
            kind = SENT_AS_THEY_ARE.get(opened.format or "")
    if kind is None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        kind, data = "image/png", buffer.getvalue()
    if len(data) > LIMIT:
        where = f"image {source}" if isinstance(source, (str, Path)) else "image"
        raise BadRecord(f"{len(data):,} bytes are more than endpoints take; make it smaller", where)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def jpeg_url(picture: Image.Image) -> str:
    """A picture to look at in a page: small, and not to the last bit."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
