"""LLaVA's own format: a JSON list, or JSONL, of ``{"id", "image", "conversations": [{"from", "value"}, ...]}``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import IMAGE, Conversation, ImageRef, Role, Turn
from llavakit.data.coco import coco_file
from llavakit.data.index import Records
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks
from llavakit.data.rules import image_folder
from llavakit.data.stream import items

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
        self.records = Records(path)

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
    record: dict[str, Any], images: Path | None, where: str, identity: str, image_first: ImageFirst
) -> Conversation:
    """One record of LLaVA's format, its pictures in ``images`` (None: their names alone, looked for nowhere).

    With ``image_first`` each ``<image>`` moves to the head of its turn, on a line of its own, as LLaVA-1.5 trains
    (``preprocess_multimodal``); else it stays before or after the text as written. ``"random"``: each turn's images go
    before or after its text, by a coin that the id and the text decide."""
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
    refs = tuple(ImageRef(Path(name) if images is None else coco_file(images / name)) for name in names)
    return Conversation(tuple(turns), refs, system, id=identity, source=where).checked()


def _placed(text: str, image_first: ImageFirst, identity: str) -> str:
    marks = text.count(IMAGE)
    if not marks or not image_first:
        return text
    words = text.replace(IMAGE, "").strip()
    last = image_first == "random" and zlib.crc32(f"{identity} {words}".encode()) & 1
    return words + f"\n{IMAGE}" * marks if last else f"{IMAGE}\n" * marks + words


class PublishedOptions(Options):
    folder: str = ""
    """Where under the root the images lie; empty where the file's own names say it."""


class Published(Reader[PublishedOptions]):
    """Files that are in LLaVA's format already, under the names that their authors gave them: read as they are. An
    unsound record is left out and counted by what is wrong with it."""

    options: ClassVar[type[Options]] = PublishedOptions

    def read(self, data: Path, options: PublishedOptions, dropped: Dropped) -> Talks:
        talks = []
        for path in self.inputs(data, options):
            for item in items(path):
                try:
                    talks.append(_talk(item.value, f"{path} record {item.index}", item.index))
                except BadRecord as error:
                    dropped(f"unsound: {error.reason}")
        return talks

    def rules(self, options: PublishedOptions) -> Sequence[Rule]:
        return [image_folder(options.folder)] if options.folder else []


class OwnOptions(PublishedOptions):
    file: str


class OwnFile(Published):
    name = "llava"
    get = "your own file in LLaVA's format (option file)"
    options = OwnOptions

    def needs(self, options: PublishedOptions) -> Sequence[str]:
        assert isinstance(options, OwnOptions)
        return (options.file,)


def _talk(record: Any, where: str, index: int) -> Talk:
    if not isinstance(record, dict):
        raise BadRecord(f"is {type(record).__name__}, not an object", where)
    id = str(record.get("id", index))
    found = conversation(record, None, where, id, image_first=False)
    if not found.answered:
        raise BadRecord("the last word is not the assistant's", where)
    turns = [("human" if turn.role == "user" else "gpt", turn.text) for turn in found.turns]
    if found.system is not None:
        turns.insert(0, ("system", found.system))
    return Talk(id, tuple(turns), tuple(str(image) for image in found.images))


SOURCE = OwnFile()
