"""A folder or URL of shards as a Source: sample i is one ranged read, in any order, from disk or an object store.

Any file system of fsspec serves (``s3://``, ``gs://``, ``https://`` ... with its package installed). A step stays a
function of (seed, epoch, index): there is no shuffle buffer, and nothing to save of a reader to resume it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import fsspec
import numpy as np

from llavakit.base.cache import kept
from llavakit.base.errors import BadRecord, BadRequest, WorkFailed
from llavakit.chat.conversation import Conversation, ImageRef
from llavakit.data.sources.llava import ImageFirst, conversation
from llavakit.data.tars import ENTRY, LIST, members, scan


def is_shards(path: str) -> bool:
    """Whether ``path`` names shards, not a file: a folder, or a URL."""
    return "://" in path or Path(path).is_dir()


class ShardSource:
    """The samples of all shards, in the order of their names.

    Raises :class:`BadRequest` at once for a place without shards and an index that does not belong to its shard,
    :class:`WorkFailed` for a place that does not answer; what is wrong with one sample is a :class:`BadRecord` that
    names shard and key, or number.
    """

    def __init__(self, path: str, image_first: ImageFirst = False) -> None:
        self.path = path.rstrip("/")
        self.name = self.path.rpartition("/")[2]
        self.image_first = image_first
        self._system: tuple[int, Any] | None = None
        self.shards = self._list()
        with ThreadPoolExecutor(16) as pool:  # a store takes its time for each of hundreds
            offsets = list(pool.map(self._offsets, self.shards))
        self.begins = np.concatenate([o[:-1] for o in offsets])
        self.ends = np.concatenate([o[1:] for o in offsets])
        self.first = np.cumsum([0, *(len(o) - 1 for o in offsets)])
        """Number of the first sample of each shard, and that of all."""

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> Conversation:
        where, parts = self.sample(index)
        record = _record(parts, where)
        found = conversation(record, None, where, str(record.get("id", index)), self.image_first)
        pictures = [ImageRef(data) for name, data in sorted(parts.items(), key=_place) if name != "json"]
        if len(pictures) != len(found.images):
            raise BadRecord(f"has {len(pictures)} picture(s) where its record names {len(found.images)}", where)
        return replace(found, images=tuple(pictures))

    @property
    def records(self) -> Sequence[Any]:
        return _Records(self)

    def sample(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Where sample ``index`` lies, for messages, and its members."""
        shard = int(np.searchsorted(self.first, index, side="right")) - 1
        begin, end = int(self.begins[index]), int(self.ends[index])
        where = f"{self.path}/{self.shards[shard]} sample {index - int(self.first[shard])}"
        data = self._read(self.shards[shard], begin, end)
        if len(data) != end - begin:
            raise BadRecord(f"ends after {len(data)} of {end - begin} bytes; copy or write this shard again", where)
        key, parts = members(data, where)
        return f"{self.path}/{self.shards[shard]} key {key!r}", parts

    def _list(self) -> list[str]:
        try:
            listed = json.loads(self._read(LIST))
            return [shard["file"] for shard in listed["shards"]]
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequest(f"{self.path}/{LIST} is not a list of shards ({error})") from None
        fs, root = self._open()
        try:
            names = [path.rpartition("/")[2] for path in fs.ls(root, detail=False)]
        except (OSError, NotImplementedError) as error:
            raise BadRequest(f"no {LIST} in {self.path}, and it cannot be listed ({error})") from None
        if found := sorted(name for name in names if name.endswith(".tar")):
            return found
        raise BadRequest(f"no shards (*.tar) in {self.path}; `llavakit data shard` writes them")

    def _offsets(self, name: str) -> np.ndarray:
        """``uint64[n + 1]``: where the samples of one shard begin, and where the last ends."""
        local = Path(self.path, name) if "://" not in self.path else None
        try:
            data = self._read(f"{name}.idx")
        except FileNotFoundError:
            if local is None:
                raise BadRequest(f"no {name}.idx in {self.path}; `llavakit data shard` writes it") from None
            return self._scanned(local)
        offsets = np.frombuffer(data, dtype=ENTRY) if len(data) % 8 == 0 else np.empty(0, dtype=ENTRY)
        if len(offsets) < 2 or (np.diff(offsets.astype(np.int64)) <= 0).any():
            raise BadRequest(f"{self.path}/{name}.idx is damaged; delete it, or copy it again")
        if local is not None and (size := _size(local)) < int(offsets[-1]):
            raise BadRequest(
                f"{local} has {size:,} bytes, and its index says {int(offsets[-1]):,}; copy the shard again"
            )
        return offsets

    def _scanned(self, path: Path) -> np.ndarray:
        _size(path)
        offsets = kept(path, "tar", lambda: scan(path))
        if len(offsets) < 2:
            raise BadRequest(f"{path} holds no sample")
        return offsets

    def _open(self) -> tuple[Any, str]:
        # By process: the connections of a process do not survive a fork into a worker.
        if self._system is None or self._system[0] != os.getpid():
            try:
                system = fsspec.core.url_to_fs(self.path, skip_instance_cache=True)
            except (ImportError, ValueError) as error:
                raise BadRequest(f"{self.path}: {error}") from None
            self._system = (os.getpid(), system)
        found: tuple[Any, str] = self._system[1]
        return found

    def _read(self, name: str, begin: int | None = None, end: int | None = None) -> bytes:
        fs, root = self._open()
        try:
            data: bytes = fs.cat_file(f"{root}/{name}", start=begin, end=end)
        except FileNotFoundError:
            if begin is None:
                raise
            raise WorkFailed(f"{self.path}/{name} is not there any more") from None
        except Exception as error:  # every store's client raises types of its own
            raise WorkFailed(f"{self.path}/{name} cannot be read: {error!r}") from error
        return data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_system": None}


class _Records(Sequence[Any]):
    """The records of a source without its pictures; None for one that is damaged."""

    def __init__(self, source: ShardSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        try:
            where, parts = self.source.sample(index)
            return _record(parts, where)
        except BadRecord:
            return None  # it is for the reader of the sample to say so


def _record(parts: dict[str, bytes], where: str) -> Any:
    if "json" not in parts:
        raise BadRecord(f"has no .json beside {', '.join(parts)}", where)
    try:
        record = json.loads(parts["json"])
    except ValueError as error:
        raise BadRecord(f"broken JSON: {error}", where) from None
    if not isinstance(record, dict):
        raise BadRecord(f"is {type(record).__name__}, not an object", where)
    return record


def _place(part: tuple[str, bytes]) -> int:
    """Of a picture among the pictures of its sample."""
    place = part[0].partition(".")[0]
    return int(place) if place.isdecimal() else 0


def _size(path: Path) -> int:
    if not path.is_file():
        raise BadRequest(f"no file at {path}, which {LIST} names")
    return path.stat().st_size
