"""What a benchmark is: questions, a rule that judges one answer, and a summary. A model is only a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from llavakit.base.errors import BadRequest, nearest
from llavakit.chat.conversation import IMAGE, Conversation

Answer = Callable[[Iterable[Conversation]], Iterator[str]]
"""A model: answers in the order of the conversations. It may read ahead as far as it likes."""


@dataclass(frozen=True)
class Question:
    """One question. ``conversation.id`` is ``id``; ``truth`` is whatever the benchmark's own judge needs."""

    id: str
    conversation: Conversation
    truth: Mapping[str, Any]
    group: str = ""


@dataclass(frozen=True)
class Verdict:
    """``score`` in 0..1. ``parsed`` is what was understood; empty means that nothing was."""

    score: float
    parsed: str


Judged = Sequence[tuple[Question, Verdict]]


@dataclass(frozen=True)
class Result:
    """A benchmark's outcome, with everything that could cast doubt on its score counted."""

    benchmark: str
    protocol: str
    score: float
    unit: str
    metrics: dict[str, float]
    count: int
    missing: int = 0
    duplicates: int = 0
    unparsed: int = 0

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Benchmark(ABC):
    """Base of all benchmarks; one in each file of ``eval/tasks/``. A protocol is a named way of asking or counting."""

    protocol: str = ""

    name: ClassVar[str]
    unit: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]] = ("standard",)
    """The first is the default. ``standard``: the official prompt, parsing and metric; a missing answer is wrong,
    and of two answers to one question the last counts."""

    def __post_init__(self) -> None:
        if not self.protocol:
            object.__setattr__(self, "protocol", self.protocols[0])
        if self.protocol not in self.protocols:
            hint = nearest(self.protocol, list(self.protocols))
            raise BadRequest(f"{self.name} has no protocol {self.protocol!r}{hint}; known: {', '.join(self.protocols)}")

    def load(self, data: str | Path, images: str | Path | None = None) -> list[Question]:
        """Reads the official files under ``data``; ``images`` where the pictures lie elsewhere. No picture is opened
        or needed, so answers can be scored without them. Raises :class:`BadRequest` when files are missing or wrong."""
        data = Path(data)
        if not data.exists():
            raise BadRequest(f"{self.name}: no file or folder at {data}")
        try:
            questions = self.read(data, Path(images) if images is not None else None)
        except KeyError as error:
            raise BadRequest(
                f"{self.name}: a record in {data} has no {error}; is the file the official one?"
            ) from error
        if not questions:
            raise BadRequest(f"{self.name}: no question in {data}")
        seen: set[str] = set()
        for question in questions:
            if question.id in seen:
                raise BadRequest(f"{self.name}: question id {question.id!r} occurs twice in {data}")
            seen.add(question.id)
        return questions

    @abstractmethod
    def read(self, data: Path, images: Path | None) -> list[Question]:
        """The questions, in the official order."""

    @abstractmethod
    def judge(self, question: Question, answer: str) -> Verdict:
        """The verdict on one answer."""

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        """Headline score in ``unit`` and further metrics. Here: the mean score, and by group where there are some."""
        scale = 100.0 if self.unit == "percent" else 1.0
        headline = scale * mean(verdict.score for _, verdict in judged)
        groups: dict[str, list[float]] = {}
        for question, verdict in judged:
            if question.group:
                groups.setdefault(question.group, []).append(verdict.score)
        return headline, {group: scale * mean(scores) for group, scores in sorted(groups.items())}

    def record(self, question: Question) -> dict[str, Any]:
        """``question_id`` and ``prompt`` as LLaVA's answers file for this benchmark writes them."""
        return {"question_id": question.id, "prompt": text_of(question).replace(f"{IMAGE}\n", "")}

    def finder(self, questions: Sequence[Question]) -> Callable[[Mapping[str, Any]], str | None]:
        """A function from a record of an answers file to the id of its question, or None."""
        known = {question.id for question in questions}

        def find(record: Mapping[str, Any]) -> str | None:
            id = str(record["question_id"])
            return id if id in known else None

        return find


def text_of(question: Question) -> str:
    """The whole text that is asked, ``<image>`` marks too."""
    return question.conversation.turns[0].text


def mean(values: Iterable[float]) -> float:
    """The mean, 0 of nothing. Summed in order, so the same answers give the same last bit."""
    values = list(values)
    return sum(values) / len(values) if values else 0.0
