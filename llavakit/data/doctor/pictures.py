"""One image file: whether training can read it, whether it is what its name says, and how it looks (a hash)."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from llavakit.base.errors import BadRecord
from llavakit.image.open import open_image

_KINDS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
FLAT = 4.0  # grey levels of standard deviation: below it a picture looks like any other flat one


class Picture(TypedDict):
    """``look``: perceptual hash, 63 bits; None for a flat picture, which looks like every other. ``content``: 64 bits
    of the file's SHA-256."""

    path: str
    code: str
    detail: str
    size: tuple[int, int]
    content: int | None
    look: int | None


def examine_picture(path: str) -> Picture:
    """Reads and decodes the whole file."""
    found = Picture(path=path, code="", detail="", size=(0, 0), content=None, look=None)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        found["code"], found["detail"] = "missing-image", (error.strerror or str(error)).lower()
        return found
    found["content"] = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    try:
        image = open_image(data)
    except BadRecord as error:
        short = "truncated" in error.reason or "broken data stream" in error.reason
        found["code"], found["detail"] = "truncated-image" if short else "unreadable-image", error.reason
        return found
    found["size"] = image.size
    found["look"] = look(image)
    kind = Image.open(io.BytesIO(data)).format or ""
    kind = "JPEG" if kind == "MPO" else kind  # a camera's JPEG with a second picture inside
    named = _KINDS.get(Path(path).suffix.lower(), kind)
    if named != kind:
        found["code"], found["detail"] = "wrong-type", f"a {kind} named {Path(path).suffix}"
    return found


def look(image: Image.Image) -> int | None:
    """Which of the 63 lowest cosine waves of the grey picture are above their median: pictures that differ in size,
    compression or slight colour agree in nearly all bits. None for a flat picture."""
    small = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < FLAT:
        return None
    waves = (_cosines() @ small @ _cosines().T).ravel()[1:]
    bits = waves > np.median(waves)
    return int("".join("1" if bit else "0" for bit in bits), 2)


@functools.cache
def _cosines() -> np.ndarray:
    """The 8 lowest rows of the 32-point discrete cosine transform, float64[8, 32]."""
    return np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5))
