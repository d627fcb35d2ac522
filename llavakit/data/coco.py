"""COCO's pictures have two names: of 2014, COCO_train2014_000000000009.jpg, and of 2017, 000000000009.jpg."""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = re.compile(r"(train|val)(2014|2017)")
_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12}\.jpg)")


def coco_file(path: Path) -> Path:
    """The path itself, or, where there is no such file, the same picture of COCO under a name that is there.

    Numbers are of a picture, not of a year: train2017 is train2014 and most of val2014.
    """
    folder, name = _FOLDER.fullmatch(path.parent.name), _NAME.fullmatch(path.name)
    if folder is None or name is None or path.is_file():
        return path
    home, number = path.parent.parent, name[1]
    for split in ("train", "val"):
        old = f"COCO_{split}2014_{number}"
        for other in (f"{split}2017/{number}", f"{split}2014/{old}", f"{split}2014/{number}", f"{split}2017/{old}"):
            if (home / other).is_file():
                return home / other
    return path


def coco_folder(path: Path) -> bool:
    """Whether there is a folder in which :func:`coco_file` looks for the pictures of the folder ``path``."""
    years = [f"{split}{year}" for split in ("train", "val") for year in (2014, 2017)]
    return _FOLDER.fullmatch(path.name) is not None and any((path.parent / year).is_dir() for year in years)
