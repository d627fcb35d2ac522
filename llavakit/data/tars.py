"""Shards: tar files in webdataset's layout, each beside the index that Megatron-Energon reads. Written and checked.

A sample is the run of members of one key: ``000000042.json``, its record in LLaVA's format, and its pictures as they
were, ``000000042.jpg`` or ``000000042.0.jpg``, ``000000042.1.png`` ... ``NAME.tar.idx`` holds, as little-endian
uint64, the offset of each sample in the tar and that of the end. ``shards.json`` lists the shards with their hashes.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from llavakit.base.errors import BadRecord, BadRequest, WorkFailed
from llavakit.base.files import read_json, sha256, write_json, writing
from llavakit.base.log import progress
from llavakit.data.sources.llava import LlavaSource

LIST = "shards.json"
ENTRY = "<u8"


@dataclass(frozen=True)
class Written:
    """What :func:`write_shards` made: samples, and what was left out by reason."""

    shards: int
    samples: int
    left_out: Counter[str]


def write_shards(source: LlavaSource, out: Path, each: int, skip: bool = False) -> Written:
    """The records of ``source`` as shards of ``each`` samples in ``out``; the same bytes for the same records and
    pictures. An unsound record or a missing picture stops the work (``BadRecord``), or is left out with ``skip``;
    whether pictures can be decoded is the doctor's to say. The folder is whole or absent: half of the shards would be
    a data set too, and nobody would notice.
    """
    if each < 1:
        raise BadRequest(f"a shard has at least one sample, not {each}")
    if out.exists() and any(out.iterdir()):
        raise BadRequest(f"{out} is not empty; name another folder, or delete it")
    left_out: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    samples = _samples(source, skip, left_out)
    with writing(out) as folder:
        folder.mkdir()
        while made := _shard(folder / f"{len(listed):06d}.tar", samples, each):
            listed.append(made)
        total = sum(shard["samples"] for shard in listed)
        if not total:
            raise BadRequest(f"{source.path} has no record to write")
        told = {"layout": "webdataset", "samples": total, "source": source.path.name, "shards": listed}
        write_json(folder / LIST, told)
    return Written(len(listed), total, left_out)


def check_shards(folder: Path) -> list[str]:
    """What is wrong with written shards, a line each: missing, of another length, or with other bytes."""
    problems = []
    for shard in progress(read_json(folder / LIST)["shards"], desc="check", unit="shard"):
        path = folder / shard["file"]
        index = path.with_suffix(".tar.idx")
        if missing := [p.name for p in (path, index) if not p.is_file()]:
            problems.append(f"{folder}: no {', '.join(missing)}")
        elif (size := path.stat().st_size) != shard["bytes"]:
            problems.append(f"{path}: {size:,} bytes, and {shard['bytes']:,} were written")
        elif sha256(path) != shard["sha256"]:
            problems.append(f"{path}: its bytes are not those that were written")
        elif (entries := index.stat().st_size) != 8 * (shard["samples"] + 1):
            problems.append(f"{index}: {entries:,} bytes for {shard['samples']:,} samples")
    return problems


def members(data: bytes, where: str) -> tuple[str, dict[str, bytes]]:
    """Key and members (by what follows the key) of one sample's bytes. Raises :class:`BadRecord` for damaged ones."""
    found: dict[str, bytes] = {}
    keys = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                key, _, rest = PurePosixPath(member.name).name.partition(".")
                content = tar.extractfile(member)
                keys.add(key)
                found[rest] = content.read() if content is not None else b""
    except (tarfile.TarError, EOFError) as error:
        raise BadRecord(f"is damaged ({error}); copy or write this shard again", where) from None
    if len(keys) != 1:
        raise BadRecord(f"holds {len(keys)} keys where one sample must lie; its index belongs to other bytes", where)
    return keys.pop(), found


def scan(path: Path) -> np.ndarray:
    """The index of a tar that somebody else has written: ``uint64[n + 1]``. Raises :class:`WorkFailed` where the tar is
    damaged."""
    offsets, last, end = [], None, 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                key = (folder, name.partition(".")[0])
                if key != last and member.isfile():
                    offsets.append(member.offset)
                    last = key
                end = member.offset_data + -(-member.size // 512) * 512
    except (tarfile.TarError, EOFError) as error:
        raise WorkFailed(f"{path} is damaged ({error}) behind byte {end:,}; copy or write this shard again") from None
    return np.array([*offsets, end], dtype=np.uint64)


def _samples(source: LlavaSource, skip: bool, left_out: Counter[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of each sound record."""
    for number in progress(range(len(source)), desc=f"shard {source.name}", unit="record"):
        try:
            yield f"{number:09d}", _members(source, number)
        except BadRecord as error:
            if not skip:
                raise
            left_out[error.reason] += 1


def _members(source: LlavaSource, number: int) -> dict[str, bytes]:
    pictures = [Path(str(ref)) for ref in source[number].images]  # raises what training would
    parts = {"json": json.dumps(source.records[number], ensure_ascii=False).encode()}
    for place, picture in enumerate(pictures):
        try:
            data = picture.read_bytes()
        except OSError as error:
            reason = f"image {picture}: {(error.strerror or str(error)).lower()}"
            raise BadRecord(reason, f"{source.path} record {number}") from None
        kind = picture.suffix.lower().lstrip(".") or "jpg"
        parts[kind if len(pictures) == 1 else f"{place}.{kind}"] = data
    return parts


def _shard(path: Path, samples: Iterator[tuple[str, dict[str, bytes]]], each: int) -> dict[str, Any] | None:
    """Writes up to ``each`` samples, tar and index; None where there are none left."""
    offsets = []
    first = next(samples, None)
    if first is None:
        return None
    with open(path, "wb") as file:
        for key, parts in itertools.chain([first], itertools.islice(samples, each - 1)):
            offsets.append(file.tell())
            _add(file, key, parts)
        offsets.append(file.tell())
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    np.array(offsets, dtype=ENTRY).tofile(path.with_suffix(".tar.idx"))
    return {"file": path.name, "samples": len(offsets) - 1, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _add(file: BinaryIO, key: str, parts: dict[str, bytes]) -> None:
    for name, data in parts.items():
        member = tarfile.TarInfo(f"{key}.{name}")
        member.size, member.mode = len(data), 0o644
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.write(data)
        file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
