"""Records: a JSON list or JSONL file as a sequence, of which a process holds the places and never the records.

Parsed, a million records take gigabytes, in every rank and every worker anew. Their places take 16 bytes each, are
found once, and lie in the cache folder for the next start and for everybody else.
"""

from __future__ import annotations

import codecs
import json
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from llavakit.base.cache import kept
from llavakit.base.errors import BadRequest
from llavakit.base.log import progress
from llavakit.data.stream import items


class Records(Sequence[Any]):
    """``records[i]``: record i, read and parsed when it is asked for.

    Raises :class:`BadRequest` at once for a missing file, one that is no list, and broken JSON (with its line).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BadRequest(f"no file at {path}")
        self._file: int | None = None
        self.places = kept(self.path, "records", self._places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = (int(place) for place in self.places[index])
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        try:
            # pread: processes that were forked share one position, and mapped pages would count as memory of each.
            return json.loads(os.pread(self._file, end - start, start))
        except ValueError:
            raise BadRequest(f"{self.path} has changed since it was opened (record {index}); start again") from None

    def _places(self) -> np.ndarray:
        """``uint64[n, 2]``: first byte of each record and the one after its last."""
        if self.path.suffix != ".jsonl":
            with open(self.path, "rb") as file:
                if file.read(1 << 12).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{":
                    raise BadRequest(f"{self.path} must hold a list of records at its top")
        places = array("Q")
        with progress(total=self.path.stat().st_size, desc=f"index {self.path.name}", unit="B") as bar:
            for item in items(self.path):
                places.append(item.start)
                places.append(item.end)
                if not item.index % 4096:
                    bar.update(item.end - bar.n)
        return np.frombuffer(places, dtype=np.uint64).reshape(-1, 2)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]
