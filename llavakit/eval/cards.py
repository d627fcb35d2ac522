"""The questions that a report shows: wrong answers of one run, or where two runs part, with their pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.base.log import log
from llavakit.chat.conversation import ImageRef
from llavakit.eval.benchmark import text_of
from llavakit.eval.compare import counts, pairs
from llavakit.eval.held import Held
from llavakit.image.open import open_image
from llavakit.image.url import jpeg_url

EACH = 24  # cards of a benchmark
SIDE = 320  # pixels of a picture

KINDS = {
    "wrong": "not right",
    "first": "the first is better",
    "second": "the second is better",
    "both": "neither is right",
}


@dataclass(frozen=True)
class Card:
    """``said``: of each run the answer, what was understood, and right, partly or wrong. ``pictures``: data URIs."""

    folder: str
    kind: str
    id: str
    group: str
    question: str
    truth: str
    said: list[tuple[str, str, str]]
    pictures: list[str]


@dataclass(frozen=True)
class Shown:
    """Cards of one benchmark, how many questions of each kind there are, and pictures that could not be shown."""

    cards: list[Card]
    counts: dict[str, int]
    missing: int


def shown(held: Sequence[Held]) -> Shown:
    """The cards of a benchmark in one run or two; chosen by a fixed seed, of each kind about as many."""
    rows = pairs(held[0], held[1]) if len(held) == 2 else [(record,) for record in held[0].records]
    kinds: dict[str, list[tuple[dict[str, Any], ...]]] = {}
    for row in rows if all(one.judged for one in held) else []:
        kind = _kind(row)
        if kind and all(map(counts, row)):
            kinds.setdefault(kind, []).append(row)
    rng = random.Random(0)
    chosen = {kind: rng.sample(own, min(len(own), EACH // max(1, len(kinds)))) for kind, own in sorted(kinds.items())}
    pictures = _pictures(held[0]) if chosen else {}
    missing: list[str] = []
    cards = [_card(held[0].folder, kind, row, pictures, missing) for kind, own in chosen.items() for row in own]
    if missing:
        log.warning("%s: %d pictures are not shown, the first: %s", held[0].folder, len(missing), missing[0])
    return Shown(cards, {kind: len(own) for kind, own in sorted(kinds.items())}, len(missing))


def mark(score: float) -> str:
    """``right``, ``wrong`` or ``partly``."""
    return "right" if score >= 1 - 1e-9 else "partly" if score > 0 else "wrong"


def _kind(row: Sequence[Mapping[str, Any]]) -> str:
    scores = [record["score"] for record in row]
    if len(scores) == 1:
        return "" if mark(scores[0]) == "right" else "wrong"
    if scores[0] != scores[1]:
        return "first" if scores[0] > scores[1] else "second"
    return "" if mark(scores[0]) == "right" else "both"


def _card(
    folder: str,
    kind: str,
    row: Sequence[Mapping[str, Any]],
    pictures: Mapping[Any, Sequence[ImageRef]],
    missing: list[str],
) -> Card:
    record = row[0]
    refs = pictures.get((str(record["question_id"]), record.get("prompt")), ())
    said = [(one["text"], str(one["parsed"]), mark(one["score"])) for one in row]
    return Card(
        folder=folder,
        kind=kind,
        id=str(record["question_id"]),
        group=str(record["group"]),
        question=str(record.get("prompt", "")).replace("<image>\n", ""),
        truth=str(record["truth"]),
        said=said,
        pictures=[url for ref in refs if (url := _thumbnail(ref, missing))],
    )


def _pictures(held: Held) -> dict[Any, Sequence[ImageRef]]:
    """What each question shows, read from the benchmark's own files; nothing where they are gone."""
    try:
        if held.data is None:
            raise BadRequest("its run.json does not say where the benchmark's files are")
        questions = held.benchmark.load(held.data, held.images)
    except BadRequest as error:
        log.warning("%s: shown without pictures: %s", held.folder, error)
        return {}
    fields: Callable[[Any], dict[str, Any]] = held.benchmark.record
    found: dict[Any, Sequence[ImageRef]] = {}
    for question in questions:
        record = fields(question)
        found[str(record["question_id"]), record.get("prompt", text_of(question))] = question.conversation.images
    return found


def _thumbnail(ref: ImageRef, missing: list[str]) -> str:
    try:
        picture = open_image(ref.source)
    except BadRecord as error:
        missing.append(str(error))
        return ""
    picture.thumbnail((SIDE, SIDE))
    return jpeg_url(picture)
