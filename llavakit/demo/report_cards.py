"""The held-out questions that the page shows, and the token view of training samples."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.demo.report_read import Demo, Record, Sample
from llavakit.world.words import BOX, LETTER, ONE_SENTENCE, REGION, SHORT

CARDS = 24
_BOX = re.compile(r"\[\s*(\d*\.?\d+)\s*,\s*(\d*\.?\d+)\s*,\s*(\d*\.?\d+)\s*,\s*(\d*\.?\d+)\s*\]")
_READ_AS = {"contains": "Must say", "phrases": "Must name"}
_FORMATS = (SHORT, LETTER, ONE_SENTENCE, REGION, BOX)


@dataclass(frozen=True)
class Region:
    """A box on the picture, in percent of its padded square; ``role``: asked, truth or answer."""

    role: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Card:
    """``image``: the picture's path in the world, ``picture``: its data URI; ``question``: ``text`` in pieces, each
    with whether it only says what form the answer takes; ``truth_is``: how the truth is to be read."""

    number: int
    ingredient: str
    image: str
    picture: str
    text: str
    question: list[tuple[str, bool]]
    answer: str
    truth: str
    truth_is: str
    mark: str
    score: float
    novel: bool
    regions: list[Region]
    others: list[tuple[str, str, str]]
    """(who, what was said, mark) of the two baselines."""


@dataclass(frozen=True)
class TokenRun:
    """Neighbouring tokens of one sort: ``image``, ``learned`` or ``given``."""

    kind: str
    tokens: list[str]


def cards(demo: Demo, number: int = CARDS) -> list[Card]:
    """Card n asks the ingredients in turn, question n of its file, or the next whose picture was not shown yet."""
    pictured = {name: found for name in demo.questions if (found := [q for q in demo.questions[name] if q["image"]])}
    if not pictured:
        raise BadRequest(f"{demo.run}: no held-out question has a picture")
    shown: set[str] = set()
    made = []
    for n, name in zip(range(number), itertools.cycle(pictured), strict=False):
        asked = pictured[name]
        around = [asked[(n + ahead) % len(asked)] for ahead in range(len(asked))]
        question = next((q for q in around if q["image"] not in shown), around[0])
        shown.add(question["image"])
        made.append(_card(demo, n + 1, name, question))
    return made


def token_runs(sample: Sample) -> Iterator[TokenRun]:
    """The sample's tokens, neighbours of one sort together."""
    kind_of = {(0, 0): "given", (1, 0): "learned"}
    for kind, run in itertools.groupby(sample.tokens, key=lambda t: kind_of.get((t[1], t[2]), "image")):
        yield TokenRun(kind, [text for text, _, _ in run])


def mark_of(score: float) -> str:
    """``right``, ``wrong`` or ``partly``: descriptions are scored by the share of things that they name rightly."""
    return "right" if score >= 1 - 1e-9 else "partly" if score > 0 else "wrong"


def _card(demo: Demo, number: int, name: str, question: Record) -> Card:
    id = str(question["question_id"])
    answer = demo.answers["tuned"].get(id)
    if answer is None:
        raise BadRequest(f"{demo.run / 'evaluation' / 'tuned' / name / 'answers.jsonl'}: no answer to question {id!r}")
    baselines = [("Blank image", demo.answers["blank"].get(id)), ("Before tuning", demo.answers["before"].get(id))]
    return Card(
        number=number,
        ingredient=name,
        image=question["image"],
        picture=demo.picture(question["image"]),
        text=question["text"],
        question=list(_split(question["text"])),
        answer=answer["text"],
        truth=_truth(question),
        truth_is=_READ_AS.get(question.get("metric", ""), "Truth"),
        mark=mark_of(answer["score"]),
        score=answer["score"],
        novel=bool(question.get("novel")),
        regions=[
            *_regions("asked", question["text"]),
            *_regions("answer", answer["text"]),
            *_regions("truth", question["answers"][0]),
        ],
        others=[(who, record["text"], mark_of(record["score"])) for who, record in baselines if record],
    )


def _split(text: str) -> Iterator[tuple[str, bool]]:
    """The prompt in pieces, those apart that only say what form the answer takes."""
    pattern = "|".join(f"({re.escape(words)})" for words in _FORMATS)
    for piece in re.split(pattern, text):
        if piece and piece.strip():
            yield piece.strip(), piece in _FORMATS


def _truth(question: Record) -> str:
    answers: list[str] = question["answers"]
    if question.get("metric") == "choice":
        option = re.search(rf"^{re.escape(answers[0])}\. .*$", question["text"], re.MULTILINE)
        return option.group() if option else answers[0]
    return ("; " if question.get("metric") == "phrases" else " or ").join(answers)


def _regions(role: str, text: Any) -> Iterator[Region]:
    match = _BOX.search(str(text))
    if match:
        left, top, right, bottom = (max(0.0, min(1.0, float(value))) for value in match.groups())
        if right > left and bottom > top:  # a model can write a box turned inside out
            yield Region(role, *(round(100 * v, 1) for v in (left, top, right - left, bottom - top)))
