"""Journal: every answer that was paid for, on disk as soon as it has come. A killed run asks only what is not there."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import JsonlLog
from llavakit.endpoint.request import Reply, Usage


class Journal:
    """An append-only JSONL file of replies by the key of their question. Safe between threads; one process at a time.

    Its lines are ``{"reply": ...}``, ``{"wasted": usage}`` for an answer that was paid and could not be used, and
    ``{"about": ...}`` for what all of a run's questions share. Raises :class:`BadRequest` when another process has it
    open, :class:`WorkFailed` when it is broken anywhere but in its last line, which a kill may tear.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._held = os.open(self.path, os.O_RDWR | os.O_CREAT)  # its lock ends with this process, however that ends
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._held)
            raise BadRequest(f"another process is writing {self.path}; wait for its end, or end it") from None
        self._lock = threading.Lock()
        self._log = JsonlLog(self.path)
        self._replies: dict[str, Reply] = {}
        self._wasted: list[Usage] = []
        self._about: dict[str, Any] = {}
        for number, record in enumerate(self._log.records, 1):
            try:
                self._take(record)
            except (KeyError, TypeError) as error:
                raise WorkFailed(f"{self.path}, line {number}: not a line of a journal ({error!r})") from None
        self._log.records.clear()  # or every reply would be in memory twice

    def __len__(self) -> int:
        return len(self._replies)

    def __getitem__(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def add(self, reply: Reply) -> None:
        """Writes a reply. A question that has its reply already keeps the first."""
        with self._lock:
            if reply.key not in self._replies:
                self._write({"reply": reply.plain()})

    def waste(self, usage: Usage) -> None:
        """Writes down what an unusable answer cost."""
        with self._lock:
            self._write({"wasted": asdict(usage)})

    def usages(self) -> Iterator[Usage]:
        """Everything that was paid for so far."""
        yield from (reply.usage for reply in self._replies.values())
        yield from self._wasted

    def settle(self, about: Mapping[str, Any]) -> None:
        """Writes down what shapes all questions (the model, the prompts). Raises :class:`BadRequest` when it differs
        from what stands there: under other settings every question would be another one, and be paid for again."""
        differ = [key for key, value in about.items() if key in self._about and self._about[key] != value]
        if differ:
            was = ", ".join(f"{key} {self._about[key]!r} (now {about[key]!r})" for key in differ)
            raise BadRequest(f"{self.path} holds answers to other questions: {was}; take the same, or another file")
        if new := {key: value for key, value in about.items() if key not in self._about}:
            with self._lock:
                self._write({"about": new})

    def close(self) -> None:
        """Lets go of the file, and leaves none that is empty; again does nothing."""
        if self._held >= 0:
            if not os.fstat(self._held).st_size:
                self.path.unlink(missing_ok=True)
            os.close(self._held)
            self._held = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._log.append(record)
        self._log.records.clear()
        self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        ((kind, value),) = record.items()
        if kind == "reply":
            reply = Reply.of_plain(value)
            self._replies.setdefault(reply.key, reply)
        elif kind == "wasted":
            self._wasted.append(Usage(**value))
        elif kind == "about":
            self._about |= value
        else:
            raise KeyError(kind)
