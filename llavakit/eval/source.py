"""Where a benchmark's files are: annotation files by their usual names, pictures by their usual folders; tables
(TSV, Parquet) row by row."""

from __future__ import annotations

import base64
import csv
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import ImageRef

# What pandas, with which the official codes read their tables, takes for an empty cell.
EMPTY = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip


def find_all(data: Path, pattern: str) -> list[Path]:
    """Files of that name (or glob pattern) in ``data`` or up to two folders below, the nearest first."""
    for prefix in ("", "*/", "*/*/"):
        found = sorted(path for path in data.glob(prefix + pattern) if path.is_file())
        if found:
            return found
    return []


def find(data: Path, *patterns: str) -> Path:
    """The file of the first pattern that is there. Raises :class:`BadRequest` naming all that were looked for."""
    path = find_optional(data, *patterns)
    if path is None:
        raise BadRequest(f"no {' or '.join(patterns)} in {data} or up to two folders below; put it there")
    return path


def find_optional(data: Path, *patterns: str) -> Path | None:
    """As :func:`find`, None where there is no such file."""
    return next((found[0] for pattern in patterns if (found := find_all(data, pattern))), None)


def image_finder(near: Path, images: Path | None, folders: Sequence[str] = ()) -> Callable[[str], ImageRef]:
    """A function from a picture's file name to its place.

    Looked for in ``images`` where given, else beside the annotation file ``near`` and one folder up; in each place in
    ``folders`` and then in the place itself. A name that is nowhere gets the first place, and is reported when it is
    asked about: scoring needs no pictures.
    """
    roots = [images] if images is not None else [near.parent, near.parent.parent]
    places = [root / folder for root in roots for folder in (*folders, "")]
    places = [place for place in places if place.is_dir()] or roots[:1]

    @functools.cache
    def locate(name: str) -> ImageRef:
        candidates = (place / name for place in places)
        return ImageRef(next((path for path in candidates if path.is_file()), places[0] / name))

    return locate


def tsv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a tab-separated table with a head, quoted as pandas reads it; empty cells are ""."""
    csv.field_size_limit(1 << 30)  # a picture stands in one cell
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise BadRequest(f"{path}, row {number}: not as many cells as the head has")
    return [{key: "" if value in EMPTY else value for key, value in row.items()} for row in rows]


def is_parquet(data: Path, *official: str) -> bool:
    """Whether ``data`` holds a benchmark as Parquet (the copies on the Hugging Face hub) and none of its official
    files."""
    return not any(find_all(data, pattern) for pattern in official) and bool(find_all(data, "*.parquet"))


def parquet_rows(
    data: Path, *patterns: str, pictures: Sequence[str] = ("image",), shared: str = ""
) -> Iterator[dict[str, Any]]:
    """The rows of the Parquet files of the first pattern that there are, in the order of the names; of all, where
    there are none (a split under a name of one's own).

    A copy on the hub holds all splits and languages of its data set: the patterns say which one is asked. Rows with
    the same value in the column ``shared`` show one picture, the first row's copy of it.

    Cells of ``pictures`` become :class:`ImageRef`, None where empty; none is read before it is opened. Of several
    pictures in a cell (a video's frames) it is the middle one. Raises :class:`BadRequest` where pyarrow is missing.
    """
    known: dict[Any, ImageRef] = {}
    found = (find_all(data, pattern) for pattern in (*patterns, "*.parquet"))
    for path in next(filter(None, found), []):
        file = _parquet(path)
        schema = file.schema_arrow
        shown = [name for name in pictures if name in schema.names]
        light = [name for name in schema.names if name not in shown]
        for name in shown:  # enough to see which cells are empty
            light.append(
                f"{name}.list.element.path" if hasattr(schema.field(name).type, "value_type") else f"{name}.path"
            )
        for group in range(file.num_row_groups):
            for index, row in enumerate(file.read_row_group(group, columns=light).to_pylist()):
                for name in shown:
                    stored = functools.partial(_stored_picture, path, group, index, name)
                    row[name] = ImageRef(stored) if row[name] else None
                    if row[name] and row.get(shared) is not None:
                        row[name] = known.setdefault(row[shared], row[name])
                yield row


def require_parquet(data: Path, *patterns: str) -> Iterator[dict[str, Any]]:
    """The rows of a benchmark that is published as Parquet. Raises :class:`BadRequest` where there is none."""
    find(data, "*.parquet")
    return parquet_rows(data, *patterns)


def base64_picture(text: str) -> ImageRef:
    """A picture that stands in a table's cell."""
    return ImageRef(base64.b64decode(text))


def _parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadRequest(f"{path} needs pyarrow to be read: pip install 'llavakit[eval]'") from None
    return ParquetFile(path)


def _stored_picture(path: Path, group: int, index: int, name: str) -> bytes:
    cell = _column(path, group, name)[index]
    return bytes((cell[len(cell) // 2] if isinstance(cell, list) else cell)["bytes"])


@functools.lru_cache(maxsize=2)
def _column(path: Path, group: int, name: str) -> list[Any]:
    column: list[Any] = _parquet(path).read_row_group(group, columns=[name]).column(name).to_pylist()
    return column
