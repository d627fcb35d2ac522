"""Files that are whole or absent: atomic writes, resumable JSONL, hashes, JSON records with their line."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest, LlavakitError, WorkFailed


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it into place when the block ends well, else removes it.

    Works for a file or a directory (an existing target directory is replaced).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            # No system call swaps two directories: a kill between these lines leaves both whole, under other names.
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            _remove(old)
            path.rename(old)
            temporary.rename(path)
            _remove(old)
        else:
            os.replace(temporary, path)
    finally:
        _remove(temporary)


def sweep(directory: str | Path) -> None:
    """Removes what :func:`writing` leaves in ``directory`` when its process is killed."""
    for path in Path(directory).glob(".*"):
        if re.fullmatch(r"\..+\.\d+\.(tmp|old)", path.name):
            _remove(path)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with writing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads one JSON file. Raises :class:`BadRequest` with line and column when it is missing or broken."""
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"no file at {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadRequest(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not UTF-8 text: {error}") from None


def read_jsonl(path: str | Path) -> list[Any]:
    """Reads a JSONL file. Raises :class:`BadRequest` naming the line that is broken."""
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"no file at {path}")
    return _parse_lines(path, path.read_bytes().removeprefix(codecs.BOM_UTF8), BadRequest)


class JsonlLog:
    """An append-only JSONL file that survives a kill: a torn last line is cut off when the file is opened again.

    ``own`` False: of several processes that keep the same records, one that leaves writing to another.
    """

    def __init__(self, path: str | Path, own: bool = True) -> None:
        self.path = Path(path)
        self.own = own
        if own:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if own and whole != len(data):
            os.truncate(self.path, whole)
        self.records = _parse_lines(self.path, data[:whole], WorkFailed)

    def append(self, record: Any) -> None:
        self.records.append(record)
        if self.own:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def truncate(self, keep: int) -> None:
        """Keeps the first ``keep`` records (a resumed run forgets what came after its snapshot)."""
        self.records = self.records[:keep]
        if self.own:
            write_text(self.path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in self.records))


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_hash(paths: Iterable[str | Path], blocks: int = 16, size: int = 65536) -> str:
    """Sixteen digits that differ for other lengths or contents of ``blocks`` pieces of each file, evenly spaced: tells
    trained weights from others at once, however large they are."""
    digest = hashlib.sha256()
    for path in paths:
        length = os.path.getsize(path)
        digest.update(f"{os.path.basename(path)} {length}\n".encode())
        with open(path, "rb") as file:
            for number in range(blocks):
                file.seek(max(0, length - size) * number // max(1, blocks - 1))
                digest.update(file.read(size))
    return digest.hexdigest()[:16]


def _parse_lines(path: Path, data: bytes, failure: type[LlavakitError]) -> list[Any]:
    values = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:  # broken JSON, or bytes that are not UTF-8
                raise failure(f"{path}, line {number}: broken JSON: {error}") from None
    return values


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
