"""Hugging Face data sets in any of their formats (extra ``data``): a column mapping says what is question and answer.

``path`` is a directory that ``save_to_disk`` wrote, a Parquet, Arrow, CSV or JSON file, or a hub id. Pictures inside
the data set are written, once each, into ``store`` under the root: records name their pictures as files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from llavakit.base.errors import BadRequest
from llavakit.base.files import writing
from llavakit.data.reader import Dropped, Options, Reader, Talk, Talks, Turn

_WHO = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}


class HfOptions(Options):
    path: str
    config: str | None = None
    split: str = "train"
    id: str | None = None
    """Column names: ``question`` (or the fixed text ``ask``) and ``answer``, or ``messages`` for whole conversations
    (lists of "from" and "value", or "role" and "content"); ``image`` may be absent."""
    image: str | None = None
    question: str | None = None
    ask: str | None = None
    answer: str | None = None
    messages: str | None = None
    store: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        asked = (self.question is None) != (self.ask is None)
        if (self.messages is None) == (self.answer is None) or (self.answer is not None and not asked):
            raise ValueError("name either messages, or answer with one of question and ask")
        return self


class HuggingFace(Reader[HfOptions]):
    name = "hf"
    get = "a data set of https://huggingface.co/datasets, or one on disk (option path)"
    options = HfOptions

    def read(self, data: Path, options: HfOptions, dropped: Dropped) -> Talks:
        table = _open(data, options)
        columns = [options.id, options.image, options.question, options.answer, options.messages]
        for name in filter(None, columns):
            if name not in table.column_names:
                raise BadRequest(f"{options.path} has no column {name!r}; it has {', '.join(table.column_names)}")
        talks = []
        for number, row in enumerate(table.select_columns([name for name in columns if name])):
            turns = tuple(_turns(row, options))
            if len(turns) < 2 or any(who == "gpt" and not text for who, text in turns):
                dropped("without an answer")
                continue
            images = tuple(_images(row[options.image], data, options)) if options.image else ()
            talks.append(Talk(str(row[options.id]) if options.id else str(number), turns, images))
        return talks


def _open(data: Path, options: HfOptions) -> Any:
    try:
        import datasets
    except ImportError:
        raise BadRequest("Hugging Face data sets need the extra: pip install 'llavakit[data]'") from None
    local = data / options.path
    datasets.disable_progress_bars()
    try:
        if (local / "state.json").is_file():
            table = datasets.load_from_disk(str(local))
        elif (local / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(local / options.split))
        elif local.suffix in _FORMATS and local.is_file():
            table = datasets.load_dataset(_FORMATS[local.suffix], data_files=str(local), split="train")
        else:
            name = str(local) if local.is_dir() else options.path
            table = datasets.load_dataset(name, options.config, split=options.split)
    except Exception as error:  # the library and the hub client raise a dozen unrelated types
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise BadRequest(f"cannot open the data set {options.path!r} (split {options.split!r}): {first[0]}") from error
    for column, kind in table.features.items():
        if isinstance(kind, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        elif isinstance(kind, datasets.List) and isinstance(kind.feature, datasets.Image):
            table = table.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return table


def _turns(row: dict[str, Any], options: HfOptions) -> Iterator[Turn]:
    if options.answer is not None:
        yield "human", str(row[options.question] if options.question else options.ask).strip()
        yield "gpt", str(row[options.answer] or "").strip()
        return
    assert options.messages is not None
    for said in row[options.messages] or []:
        who = said.get("from") or said.get("role")
        text = said["value"] if "value" in said else said["content"]
        if who not in _WHO or not isinstance(text, str):
            raise BadRequest(
                f"{options.path}: a turn of column {options.messages!r} is {said!r}, not a speaker and text"
            )
        yield _WHO[who], text.strip()


def _images(value: Any, data: Path, options: HfOptions) -> Iterator[str]:
    for picture in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(picture, str):
            yield picture
        elif picture.get("bytes") is None:
            yield str(picture["path"])
        elif options.store is None:
            raise BadRequest(f"{options.path} has its pictures inside; name a folder under the root as option store")
        else:
            yield _stored(picture["bytes"], data, options.store)


def _stored(encoded: bytes, data: Path, store: str) -> str:
    from PIL import Image

    try:
        kind = (Image.open(io.BytesIO(encoded)).format or "png").lower()
    except OSError:
        kind = "bin"  # left as it is: the doctor names it
    name = f"{store}/{hashlib.sha256(encoded).hexdigest()[:24]}.{'jpg' if kind == 'jpeg' else kind}"
    if not (data / name).exists():
        with writing(data / name) as temporary:
            temporary.write_bytes(encoded)
    return name


SOURCE = HuggingFace()
