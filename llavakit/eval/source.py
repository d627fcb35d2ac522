"""Where a benchmark's files are: annotation files by their usual names, pictures by their usual folders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import ImageRef


def find_all(data: Path, pattern: str) -> list[Path]:
    """Files of that name (or glob pattern) in ``data`` or up to two folders below, the nearest first."""
    for prefix in ("", "*/", "*/*/"):
        found = sorted(path for path in data.glob(prefix + pattern) if path.is_file())
        if found:
            return found
    return []


def find(data: Path, *patterns: str) -> Path:
    """The file of the first pattern that is there. Raises :class:`BadRequest` naming all that were looked for."""
    path = find_optional(data, *patterns)
    if path is None:
        raise BadRequest(f"no {' or '.join(patterns)} in {data} or up to two folders below; put it there")
    return path


def find_optional(data: Path, *patterns: str) -> Path | None:
    """As :func:`find`, None where there is no such file."""
    return next((found[0] for pattern in patterns if (found := find_all(data, pattern))), None)


def image_finder(near: Path, images: Path | None, folders: Sequence[str] = ()) -> Callable[[str], ImageRef]:
    """A function from a picture's file name to its place.

    Looked for in ``images`` where given, else beside the annotation file ``near`` and one folder up; in each place in
    ``folders`` and then in the place itself. A name that is nowhere gets the first place, and is reported when it is
    asked about: scoring needs no pictures.
    """
    roots = [images] if images is not None else [near.parent, near.parent.parent]
    places = [root / folder for root in roots for folder in (*folders, "")]
    places = [place for place in places if place.is_dir()] or roots[:1]

    @functools.cache
    def locate(name: str) -> ImageRef:
        candidates = (place / name for place in places)
        return ImageRef(next((path for path in candidates if path.is_file()), places[0] / name))

    return locate
