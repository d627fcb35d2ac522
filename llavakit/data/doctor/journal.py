"""The doctor's memory: what each chunk of work found, on disk, so that a killed examination goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """An append-only JSONL of ``{"kind", "chunk", "rows"}``, never held in memory. It belongs to ``of``: a journal of
    anything else is begun anew."""

    def __init__(self, path: Path, of: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[str, int] = {}
        """For each kind how many chunks are in it: they are written in order."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._continues(of):
            path.write_text(json.dumps({"of": of}) + "\n", encoding="utf-8")
            self.done = {}

    def _continues(self, of: dict[str, Any]) -> bool:
        if not self.path.is_file():
            return False
        whole = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break  # torn by a kill
                record = json.loads(line)
                if number == 0 and record.get("of") != of:
                    return False
                if number:
                    self.done[record["kind"]] = record["chunk"] + 1
                whole += len(line)
        os.truncate(self.path, whole)
        return whole > 0

    def append(self, kind: str, chunk: int, rows: list[Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "chunk": chunk, "rows": rows}) + "\n")

    def rows(self, kind: str) -> Iterator[Any]:
        """All rows of a kind, in order."""
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                # The kind stands first: lines of other kinds need no parsing.
                if line.startswith(f'{{"kind": {json.dumps(kind)},'):
                    yield from json.loads(line)["rows"]
