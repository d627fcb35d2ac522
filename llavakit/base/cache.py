"""Arrays that are long to compute from a file and stay true while it stays as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llavakit.base.files import writing
from llavakit.base.log import log

LEAST = 16 << 20
"""Bytes of a file whose array is worth keeping."""


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/llavakit``, or ``~/.cache/llavakit``. All in it may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llavakit"


def kept(path: Path, kind: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What ``compute`` says of the file at ``path``: read (memory-mapped) from the cache folder while path, size and
    time of change are the same. Where that folder cannot be written to, a warning, and the array all the same."""
    stat = path.stat()
    if stat.st_size < LEAST:
        return compute()
    name = f"{kind}-{hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}"
    file = cache_folder() / f"{name}-{stat.st_size}-{stat.st_mtime_ns}.npy"
    try:
        return np.load(file, mmap_mode="r")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning(f"{file} cannot be read and is made anew: {error}")
    made = compute()
    try:
        with writing(file) as temporary, open(temporary, "wb") as out:
            np.save(out, made)
        for other in file.parent.glob(f"{name}-*.npy"):
            if other != file:
                other.unlink(missing_ok=True)  # of the file as it was
    except OSError as error:
        log.warning(f"{path} is read again at every start: {file.parent} cannot be written to ({error.strerror})")
    return made
