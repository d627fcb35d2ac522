"""LLaVA's own format: a JSON list, or JSONL, of ``{"id", "image", "conversations": [{"from", "value"}, ...]}``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import IMAGE, Conversation, ImageRef, Role, Turn

ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}

ImageFirst = bool | Literal["random"]


class LlavaSource:
    """Records of one file; image paths are relative to ``images``.

    Raises :class:`~llavakit.base.errors.BadRequest` at once for a missing file or broken JSON (with its line).
    """

    def __init__(self, path: str | Path, images: str | Path | None = None, image_first: ImageFirst = False) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.images = Path(images) if images else self.path.parent
        self.image_first = image_first
        self.records: Sequence[Any] = read_jsonl(path) if self.path.suffix == ".jsonl" else read_json(path)
        if not isinstance(self.records, list):
            raise BadRequest(f"{path} must hold a list of records at its top")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Conversation:
        record = self.records[index]
        where = f"{self.path} record {index}"
        if not isinstance(record, dict):
            raise BadRecord(f"is {type(record).__name__}, not an object", where)
        identity = str(record.get("id", index))
        return conversation(record, self.images, where, identity, self.image_first)


def conversation(
    record: dict[str, Any], images: Path, where: str, identity: str, image_first: ImageFirst
) -> Conversation:
    """One record of LLaVA's format. With ``image_first`` each ``<image>`` moves to the head of its turn, on a line of
    its own, as LLaVA-1.5 trains (``preprocess_multimodal``); else it stays before or after the text as written.
    ``"random"``: each turn's images go before or after its text, by a coin that the id and the
    text decide."""
    place = f"{where} id {identity!r}"
    said = record.get("conversations")
    if not isinstance(said, list) or not all(isinstance(t, dict) and {"from", "value"} <= t.keys() for t in said):
        raise BadRecord('"conversations" must be a list of {"from", "value"}', place)
    for number, item in enumerate(said, 1):
        if not isinstance(item["from"], str) or not isinstance(item["value"], str):
            raise BadRecord(f'turn {number}: "from" and "value" must be text, not {item}', place)
    system = None
    if said and said[0]["from"] == "system":
        system, said = said[0]["value"], said[1:]
    turns = []
    for number, item in enumerate(said, 1):
        if item["from"] not in ROLES:
            raise BadRecord(f"turn {number} is from {item['from']!r}; known: {', '.join(ROLES)}", place)
        role, text = ROLES[item["from"]], item["value"]
        turns.append(Turn(role, _placed(text, image_first, identity) if role == "user" else text))
    named = record.get("image")
    names = [named] if isinstance(named, str) else [] if named is None else named
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise BadRecord(f'"image" must be a file name or a list of them, not {named!r}', place)
    refs = tuple(ImageRef(images / name) for name in names)
    return Conversation(tuple(turns), refs, system, id=identity, source=where).checked()


def _placed(text: str, image_first: ImageFirst, identity: str) -> str:
    marks = text.count(IMAGE)
    if not marks or not image_first:
        return text
    words = text.replace(IMAGE, "").strip()
    last = image_first == "random" and zlib.crc32(f"{identity} {words}".encode()) & 1
    return words + f"\n{IMAGE}" * marks if last else f"{IMAGE}\n" * marks + words
