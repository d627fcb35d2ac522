"""What a benchmark is: questions, a rule that judges one answer, and a summary. A model is only a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llavakit.base.errors import BadRequest, nearest
from llavakit.base.files import read_jsonl
from llavakit.chat.conversation import IMAGE, Conversation

if TYPE_CHECKING:
    import numpy as np

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
    """``score`` in 0..1. ``parsed`` is what was understood; empty means that nothing was. ``odd`` where the rule gave
    a meaning to an answer that has none (POPE takes "maybe" for yes)."""

    score: float
    parsed: str
    odd: bool = False


Judged = Sequence[tuple[Question, Verdict]]

Record = Mapping[str, Any]
"""One line of an answers file."""

Found = Sequence[tuple[Question | None, Record]]
"""An answers file in its own order, each record with the question that it answers; None for a stranger."""

Latest = Mapping[str, Record]
"""The answer that counts for each question id: of several, the last."""

Tally = Mapping[str, float]
"""What one question adds to the sums, by name, of which a benchmark's headline is made."""


@dataclass(frozen=True)
class Counted:
    """What one way of counting gives: the headline in the benchmark's unit and further metrics. ``tallies``: of each
    question, where the headline is made of sums: from them comes its interval."""

    score: float
    metrics: dict[str, float]
    unparsed: int = 0
    tallies: Sequence[Tally] | None = None


STOPS = "official_stops"
"""Metric: 1 where the official code ends with an error on these answers."""


class OfficialStops(Exception):
    """The official code ends with an error on such answers; the message says at what."""


@dataclass(frozen=True)
class Result:
    """A benchmark's outcome, with everything that could cast doubt on its score counted. ``interval``: where the score
    would lie in 95 of 100 samples of as many pictures (:mod:`llavakit.eval.resample`); of the strict count, where that
    and the official one differ."""

    benchmark: str
    protocol: str
    score: float
    unit: str
    metrics: dict[str, float]
    count: int
    missing: int = 0
    duplicates: int = 0
    unparsed: int = 0
    interval: tuple[float, float] | None = None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Benchmark(ABC):
    """Base of all benchmarks; one in each file of ``eval/tasks/``. A protocol is a named way of asking or counting."""

    protocol: str = ""

    name: ClassVar[str]
    unit: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]] = ("official", "strict")
    """The first is the default. ``official``: the number that the official code gives, faults included. ``strict``:
    its prompt, parsing and metric, honestly counted: every question counts once, a missing answer is wrong, and of
    several answers to one question the last counts. ``standard``: there is no official code; counted as ``strict``."""

    also: ClassVar[tuple[str, ...]] = ()
    """What its folder may be called beside its name."""

    judged: ClassVar[bool] = False
    """Whether a judge's reviews are scored, and not the answers themselves."""

    def __post_init__(self) -> None:
        if not self.protocol:
            object.__setattr__(self, "protocol", self.protocols[0])
        if self.protocol not in self.protocols:
            hint = nearest(self.protocol, list(self.protocols))
            raise BadRequest(f"{self.name} has no protocol {self.protocol!r}{hint}; known: {', '.join(self.protocols)}")

    def load(self, data: str | Path, images: str | Path | None = None) -> list[Question]:
        """Reads the official files under ``data``; ``images`` where the pictures lie elsewhere. No picture is opened
        or needed, so answers can be scored without them. Raises :class:`BadRequest` when files are missing or wrong."""
        questions = self._read(Path(data), Path(images) if images is not None else None)
        return self.askable(Path(data), questions)

    def annotations(self, data: str | Path, records: Sequence[Any]) -> list[Question]:
        """The questions that the ``records`` of an answers file are scored on; what only asking needs may be missing.
        Raises :class:`BadRequest` where they have no answers to score against, as a server's test split."""
        questions = self._read(Path(data), None)
        if not any(map(self.has_truth, questions)):
            raise BadRequest(
                f"{self.name}: the split in {data} has no answers to score against; put one there that has, or write "
                "the file for the benchmark's server"
            )
        return questions

    def _read(self, data: Path, images: Path | None) -> list[Question]:
        if not data.exists():
            raise BadRequest(f"{self.name}: no file or folder at {data}")
        try:
            questions = self.read(data, images)
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

    def askable(self, data: Path, questions: list[Question]) -> list[Question]:
        """The questions. Raises :class:`BadRequest` where something is missing that scoring does without."""
        return questions

    def has_truth(self, question: Question) -> bool:
        """Whether the right answer to a question is known."""
        return True

    def answers(self, path: str | Path) -> list[Any]:
        """The records of an answers file."""
        return read_jsonl(path)

    @abstractmethod
    def read(self, data: Path, images: Path | None) -> list[Question]:
        """The questions, in the official order."""

    @abstractmethod
    def judge(self, question: Question, answer: str) -> Verdict:
        """The verdict on one answer."""

    def strict(self, questions: Sequence[Question], latest: Latest) -> Counted:
        """The honest count."""
        verdicts = {q.id: self.judge(q, latest[q.id]["text"]) for q in questions if q.id in latest}
        judged = [(q, verdicts.get(q.id, Verdict(0.0, ""))) for q in questions]
        unparsed = sum(v.odd or not v.parsed for v in verdicts.values())
        return Counted(*self.summarize(judged), unparsed, self.tally(judged))

    def official(self, questions: Sequence[Question], found: Found) -> Counted | None:
        """What the official code gives on the same answers, None where that is the honest count.

        Raises :class:`OfficialStops` where it gives nothing."""
        return None

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        """Headline score in ``unit`` and further metrics. Here: the mean score, and by group where there are some."""
        scale = 100.0 if self.unit == "percent" else 1.0
        headline = scale * mean(verdict.score for _, verdict in judged)
        groups: dict[str, list[float]] = {}
        for question, verdict in judged:
            if question.group:
                groups.setdefault(question.group, []).append(verdict.score)
        return headline, {group: scale * mean(scores) for group, scores in sorted(groups.items())}

    def tally(self, judged: Judged) -> list[Tally]:
        """What each question adds to the sums of which :meth:`headline` is made, nothing where it is not counted. Here
        those of a mean."""
        return [{"score": verdict.score, "count": 1.0} for _, verdict in judged]

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The headline score of sums of tallies, ``float64[...]`` each: that of :meth:`summarize` for all questions."""
        scale = 100.0 if self.unit == "percent" else 1.0
        return scale * ratio(sums["score"], sums["count"])

    def shown_truth(self, question: Question) -> str:
        """The right answer in words, for a reader; "" where none is known."""
        truth = question.truth
        answers = truth.get("answers") or [truth.get("answer", truth.get("label", ""))]
        return " / ".join(text for text, _ in Counter(map(str, answers)).most_common())

    def submission(self, data: Path, latest: Latest) -> bytes:
        """The file that the benchmark's server takes, of the answers by question id. Raises :class:`BadRequest` for a
        benchmark without one."""
        raise BadRequest(f"{self.name} has no server to submit to; score it")

    def check(self, record: Any, number: int) -> Record:
        """The ``number``-th record, when it is one. Raises :class:`BadRequest` else."""
        return checked(record, number)

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


def checked(record: Any, number: int) -> Record:
    """A record of LLaVA's answers format. Raises :class:`BadRequest` when it has no id or no text."""
    if not isinstance(record, Mapping) or "question_id" not in record or not isinstance(record.get("text"), str):
        raise BadRequest(f"answer {number} must be a mapping with a question_id and a text, got {str(record)[:100]}")
    return record


def every(questions: Sequence[Question], found: Found) -> None:
    """Raises :class:`OfficialStops` where a question has no answer."""
    answered = {question.id for question, _ in found if question is not None}
    missing = next((question.id for question in questions if question.id not in answered), None)
    if missing is not None:
        raise OfficialStops(f"question {missing!r} has no answer")


def no_strangers(found: Found) -> None:
    """Raises :class:`OfficialStops` where an answer belongs to no question."""
    strange = next((record["question_id"] for question, record in found if question is None), None)
    if strange is not None:
        raise OfficialStops(f"the answer with question_id {strange!r} belongs to no question")


def text_of(question: Question) -> str:
    """The whole text that is asked, ``<image>`` marks too."""
    return question.conversation.turns[0].text


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, 0 where there is nothing."""
    import numpy as np

    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) > 0)


def mean(values: Iterable[float]) -> float:
    """The mean, 0 of nothing. Summed in order, so the same answers give the same last bit."""
    values = list(values)
    return added(values) / len(values) if values else 0.0


def added(values: Iterable[float]) -> float:
    """The sum, one by one: from Python 3.12 on ``sum`` corrects its rounding, and gives other last bits."""
    total = 0.0
    for value in values:
        total += value
    return total
