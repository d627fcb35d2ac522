"""A small file in LLaVA's format, with its pictures: what the tests of data and training read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (20, 160, 40)}


def records(count: int, folder: Path) -> list[dict[str, Any]]:
    """Questions about one-coloured pictures, which are drawn into ``folder``; every fourth is about no picture."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        colour = list(COLOURS)[number % 3]
        said = [("human", "What colour is it?\n<image>"), ("gpt", f"It is {colour}.")]
        record: dict[str, Any] = {"id": f"r{number}", "image": f"{number}.png"}
        if number % 4 == 3:
            said = [("human", "Say yes."), ("gpt", "Yes"), ("human", f"And {number}?"), ("gpt", f"{number}")]
            del record["image"]
        else:
            pixels = np.full((20 + number, 30, 3), COLOURS[colour], dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        made.append(record | {"conversations": [{"from": who, "value": text} for who, text in said]})
    return made


def write(folder: Path, count: int = 12) -> Path:
    """``folder/data.json`` with ``count`` records."""
    path = folder / "data.json"
    path.write_text(json.dumps(records(count, folder)))
    return path
