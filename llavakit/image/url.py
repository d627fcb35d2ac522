"""A picture as the ``data:`` address in which models behind an endpoint take it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from llavakit.base.errors import BadRecord
from llavakit.image.open import open_image

# As every endpoint reads them. Their bytes go as they are: encoded anew, the same picture would be another question.
SENT_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


def data_url(path: str | Path) -> str:
    """``data:image/jpeg;base64,...``; a format that endpoints do not read is sent as PNG.

    Raises :class:`BadRecord` for a file that is missing, damaged or no picture.
    """
    picture = open_image(path)  # whole and readable, or it raises: an endpoint would charge for finding out
    data = Path(path).read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        kind = SENT_AS_THEY_ARE.get(opened.format or "")
    if kind is None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        kind, data = "image/png", buffer.getvalue()
    if len(data) > 20_000_000:
        raise BadRecord(f"{len(data):,} bytes are more than endpoints take; make it smaller", f"image {path}")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
