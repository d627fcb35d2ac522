"""JSON files larger than memory: records one after another, each with its line, and past a broken one.

Annotation files are one JSON list or object of up to gigabytes; ``json.load`` makes several times that in objects.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from llavakit.base.errors import BadRequest

CHUNK = 1 << 18  # characters; a window that stays in the cache is decoded three times as fast as one of 1 << 20
LONGEST = 64 << 20  # characters of one record: beyond it a missing bracket is more likely than such a record
_SPACE = re.compile(r"\s*")
_OBJECT = re.compile(r'\{\s*"')


class Item(NamedTuple):
    """One record: its number from 0, the line on which it begins (from 1), and its value; ``key`` in an object.
    Where ``error`` says what is wrong, there is no value. ``start`` and ``end``: the value's bytes in the file."""

    index: int  # type: ignore[assignment]  # tuple.index is not missed
    line: int
    value: Any = None
    key: str = ""
    error: str = ""
    start: int = 0
    end: int = 0


def items(path: str | Path) -> Iterator[Item]:
    """The records of a JSON list, JSON object or JSONL file. Raises :class:`BadRequest`, with its line, for a broken
    one."""
    for item in survey(path):
        if item.error:
            raise BadRequest(f"{path}, line {item.line}: broken JSON: {item.error}")
        yield item


def survey(path: str | Path) -> Iterator[Item]:
    """As :func:`items`, but a broken record is an Item with an ``error``, and reading goes on after it: with the next
    line of JSONL, with the next object that has "conversations" in a list. Raises :class:`BadRequest` for no file."""
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"no file at {path}")
    yield from _lines(path) if path.suffix == ".jsonl" else _Reader(path).items()


def _lines(path: Path) -> Iterator[Item]:
    index, end = 0, 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            end += len(line)
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            try:
                yield Item(index, number, json.loads(line), start=end - len(line), end=end)
            except json.JSONDecodeError as error:  # its own line counts from this one
                yield Item(index, number, error=f"{error.msg} (character {error.pos + 1})")
            except ValueError as error:  # bytes that are not UTF-8
                yield Item(index, number, error=str(error))
            index += 1


class _Broken(Exception):
    pass


class _Reader:
    """A window on the text: ``text[at:]`` is still to be read, ``line`` and ``byte`` are those of ``text[at]``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.byte = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        # newline="": a translated "\r\n" would be one byte short.
        self.file = open(path, encoding="utf-8-sig", newline="")  # noqa: SIM115 (items closes it)
        self.text, self.at, self.line, self.ended = "", 0, 1, False
        self.decoder = json.JSONDecoder()

    def items(self) -> Iterator[Item]:
        with self.file:
            first = self.peek()
            if first not in ("[", "{"):
                self.refuse(f"begins with {first!r}, not with a list or an object" if first else "is empty")
            self.move(self.at + 1)
            yield from self.members("]" if first == "[" else "}")

    def members(self, end: str) -> Iterator[Item]:
        index, first = 0, self.peek()
        while first != end:
            line = self.line
            try:
                key = self.key() if end == "}" else ""
                start = self.byte
                value = self.value()
                yield Item(index, line, value, key, "", start, self.byte)
                index += 1
                first = self.peek()
                if first not in (",", end):
                    raise _Broken(f"{first or 'the end of the file'!r} where ',' or {end!r} must stand")
                if first == ",":
                    self.move(self.at + 1)
                    first = self.peek()
                    if first == end:
                        raise _Broken(f"',' before {end!r}")
            except _Broken as error:
                yield Item(index, self.line if index and line != self.line else line, error=str(error))
                index += 1
                if end == "}" or not self.resync():
                    return
                first = self.peek()

    def key(self) -> str:
        key = self.value()
        if not isinstance(key, str) or self.peek() != ":":
            raise _Broken("a key and ':' must stand here")
        self.move(self.at + 1)
        self.peek()
        return key

    def value(self) -> Any:
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                torn = error.msg.startswith("Unterminated") or error.pos > len(self.text) - 16
                if torn and not self.ended and len(self.text) - self.at < LONGEST:
                    self.more()
                    continue
                line = self.line + self.text.count("\n", self.at, error.pos)
                raise _Broken(f"{error.msg} (line {line})") from None
            if isinstance(value, int | float) and end > len(self.text) - 4 and not self.ended:
                self.more()  # "1" may be the beginning of "1.5e+3"
                continue
            self.move(end)
            return value

    def resync(self) -> bool:
        """Goes on to the next whole record, if there is one."""
        start = self.at + 1
        while True:
            for found in _OBJECT.finditer(self.text, start):
                try:
                    value, _ = self.decoder.raw_decode(self.text, found.start())
                except json.JSONDecodeError:
                    continue
                if "conversations" in value:
                    self.move(found.start())
                    return True
            if self.ended or len(self.text) - self.at > LONGEST:
                return False
            self.more()

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        if (found := self.text[self.at : self.at + 1]) and not found.isspace():
            return found
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            self.move(match.end())
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.byte += to - self.at if self.text.isascii() else len(self.text[self.at : to].encode())
        self.at = to

    def more(self) -> None:
        try:
            # Twice what is there: a long record is parsed again a few times, not once for every chunk.
            chunk = self.file.read(max(CHUNK, len(self.text) - self.at))
        except UnicodeDecodeError as error:
            self.refuse(f"is not UTF-8 text: {error}")
        self.ended = not chunk
        self.text, self.at = self.text[self.at :] + chunk, 0

    def refuse(self, reason: str) -> NoReturn:
        raise BadRequest(f"{self.path}, line {self.line}: {reason}")
