"""One record: what is wrong with it, and what the statistics need to know of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, TypedDict

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import IMAGE
from llavakit.data.coco import coco_file
from llavakit.data.doctor.language import language
from llavakit.data.measure import measure
from llavakit.data.sources.llava import ROLES, conversation
from llavakit.data.stream import Item
from llavakit.eval.prompts import CAPTION, LETTER, SHORT
from llavakit.model.encode import Codec


class Row(TypedDict):
    """What the journal keeps of a record. ``asked``: its questions that a benchmark asks too."""

    index: int
    line: int
    id: str
    source: str
    images: list[str]
    key: str
    asked: list[str]
    turns: int
    characters: int
    language: str
    tokens: list[int] | None
    problems: list[tuple[str, str]]


def examine(item: Item, images: Path, codec: Codec | None, asked: Container[str] = ()) -> Row:
    """The row of one record; its images are only named here. ``asked``: :func:`question_key` of benchmarks."""
    row = Row(
        index=item.index,
        line=item.line,
        id="",
        source="",
        images=[],
        key="",
        asked=[],
        turns=0,
        characters=0,
        language="",
        tokens=None,
        problems=[],
    )
    if item.error:
        row["problems"].append(("broken-json", item.error))
        return row
    record = item.value
    row["problems"] += structure(record)
    if isinstance(record, dict):
        row["id"], row["source"] = str(record.get("id", item.index)), str(record.get("source", ""))
    if any(code in ("not-a-record", "unknown-speaker") for code, _ in row["problems"]):
        return row
    said: list[dict[str, str]] = record["conversations"]
    answers = [turn["value"] for turn in said if ROLES.get(turn["from"]) == "assistant"]
    questions = [turn["value"] for turn in said if ROLES.get(turn["from"]) == "user"]
    row["images"] = [str(coco_file(images / name)) for name in names(record)]
    row["turns"], row["characters"] = len(said), sum(map(len, answers))
    row["language"] = language(" ".join([*answers, *questions]))
    row["key"] = hashlib.blake2b(json.dumps([names(record), said]).encode(), digest_size=8).hexdigest()
    row["asked"] = [key for key in map(question_key, questions) if key in asked]
    if not row["problems"]:
        _as_training(record, images, codec, row)
    return row


def structure(record: Any) -> Iterator[tuple[str, str]]:
    """(code, detail) of everything that is wrong with a record's form; after a grave one the rest is not seen."""
    said = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(said, list) or not said:
        yield "not-a-record", '"conversations" must be a list of turns'
        return
    if not all(
        isinstance(t, dict) and isinstance(t.get("from"), str) and isinstance(t.get("value"), str) for t in said
    ):
        yield "not-a-record", 'a turn must be {"from": text, "value": text}'
        return
    try:
        named = names(record)
    except BadRecord as error:
        yield "not-a-record", error.reason
        return
    turns = said[1:] if said[0]["from"] == "system" else said
    strangers = sorted({turn["from"] for turn in turns} - ROLES.keys())
    if strangers:
        yield "unknown-speaker", ", ".join(map(repr, strangers))
        return
    roles = [ROLES[turn["from"]] for turn in turns]
    wrong = next((n for n, role in enumerate(roles) if role != ("assistant" if n % 2 else "user")), None)
    if wrong is not None:
        yield "turn-order", f"turn {wrong + 1} is the {roles[wrong]}'s"
    if not roles or roles[-1] != "assistant":
        yield "unanswered", f"{len(roles)} turns"
    for number, turn in enumerate(turns, 1):
        if ROLES[turn["from"]] == "assistant" and not turn["value"].strip():
            yield "empty-answer", f"turn {number}"
        if ROLES[turn["from"]] == "assistant" and IMAGE in turn["value"]:
            yield "image-in-answer", f"turn {number}"
    marks = sum(turn["value"].count(IMAGE) for turn in turns)
    if marks != len(named):
        yield "image-count", f"{marks} {IMAGE} in the text, {len(named)} image(s)"


def names(record: dict[str, Any]) -> list[str]:
    """Image names of a record. Raises :class:`BadRecord` when they are not names."""
    named = record.get("image")
    found = [named] if isinstance(named, str) else [] if named is None else named
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise BadRecord(f'"image" must be a file name or a list of them, not {named!r}')
    return found


def question_key(text: str) -> str:
    """Equal for questions that differ in case, punctuation, image marks, OCR tokens and format prompts only; "" for
    none."""
    lines = [line for line in text.replace(IMAGE, "").split("\n") if not line.startswith("Reference OCR token:")]
    kept = " ".join(lines).lower()
    for prompt in (SHORT, LETTER, CAPTION):
        kept = kept.replace(prompt.lower(), "")
    words = re.findall(r"\w+", kept)
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).hexdigest() if words else ""


def _as_training(record: dict[str, Any], images: Path, codec: Codec | None, row: Row) -> None:
    """Reads the record as training does: what that refuses is a problem, whatever the checks above say."""
    try:
        found = conversation(record, images, "", row["id"], image_first=True)
        if codec is None:
            return
        counts = measure(found, codec)
    except BadRecord as error:
        row["problems"].append(("refused", error.reason))
        return
    row["tokens"] = [counts.tokens, counts.supervised, counts.lost, counts.lost_supervised]
    if counts.refused:
        row["problems"].append(("no-room", counts.refused))
    elif counts.lost:
        lost = f"{counts.lost} of {counts.tokens} tokens are cut, {counts.lost_supervised} of them to be learned"
        row["problems"].append(("too-long", lost))
