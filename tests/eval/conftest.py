"""Small data folders in the official formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes JSON, JSONL (by the name's ending, or for POPE's by a list of mappings) or an empty file."""

    def write(name: str, content: Any = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl") or "coco_pope" in name:
            path.write_text("".join(json.dumps(line) + "\n" for line in content))
        else:
            path.write_text("" if content is None else json.dumps(content))
        return path

    return write
