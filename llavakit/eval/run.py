"""Runs a benchmark against a model, or scores an answers file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import JsonlLog, read_jsonl, write_json
from llavakit.base.log import log as message
from llavakit.base.log import progress
from llavakit.base.registry import Registry
from llavakit.chat.conversation import Conversation
from llavakit.eval.benchmark import (
    STOPS,
    Answer,
    Benchmark,
    Found,
    Latest,
    OfficialStops,
    Question,
    Result,
    checked,
    mean,
)

BENCHMARKS = Registry("llavakit.eval.tasks", "BENCHMARK", "benchmark")
STRANGERS = "answers to no question (count)"


def evaluate(
    benchmark: Benchmark, questions: Sequence[Question], answer: Answer, out: str | Path | None = None
) -> Result:
    """Asks, judges and sums up. With ``out``, ``answers.jsonl`` grows there with every answer (in LLaVA's answers
    format, with ``parsed``, ``score`` and ``group``), so a killed run goes on where it stopped, and ``result.json``
    is written at the end.

    Questions about one picture are asked in a row: an engine can share their prefix. The order does not depend on
    anything else. Raises :class:`BadRequest` when a picture is missing or ``out`` holds another run's answers,
    :class:`WorkFailed` when the model stops before the last question.
    """
    order = by_image(questions)
    _require_images(order)
    log = JsonlLog(Path(out) / "answers.jsonl") if out is not None else None
    done = _resume(benchmark, order, questions, log)
    todo = order[len(done) :]
    replies = iter(answer(q.conversation for q in todo) if todo else ())
    for question in progress(todo, total=len(todo), desc=benchmark.name, unit="question"):
        text = next(replies, None)
        if text is None:
            raise WorkFailed(f"{benchmark.name}: the model gave no answer to question {question.id!r} and stopped")
        done[question.id] = benchmark.record(question) | {"text": text}
        if log is not None:
            verdict = benchmark.judge(question, text)
            done[question.id] |= {"parsed": verdict.parsed, "score": verdict.score, "group": question.group}
            log.append(done[question.id])
    # In the official order: official codes that pair answers with labels by position then read our file right.
    records = [done[question.id] for question in questions]
    result = score(benchmark, questions, records)
    if log is not None:
        log.records = records
        log.truncate(len(records))
        write_json(log.path.with_name("result.json"), result.plain())
    return result


def score(benchmark: Benchmark, questions: Sequence[Question], answers: Iterable[Mapping[str, Any]]) -> Result:
    """Scores the records of anyone's answers file (``question_id``, ``prompt``, ``text``).

    The headline is the count that the benchmark's protocol names; the other count stands in the metrics, as
    ``strict`` or ``official``. Where the official code ends with an error, the honest count stands for it, a warning
    says why and the metric ``official_stops`` is 1. Answers to no question are counted in the metrics. Raises
    :class:`BadRequest` when a record is malformed or when no answer belongs to any question.
    """
    find, by_id = benchmark.finder(questions), {q.id: q for q in questions}
    records = [benchmark.check(record, number) for number, record in enumerate(answers, 1)]
    found: Found = [(by_id.get(find(record) or ""), record) for record in records]
    latest = {question.id: record for question, record in found if question is not None}
    if records and not latest:
        raise BadRequest(
            f"none of the {len(records)} answers belongs to a question of {benchmark.name}; is it the right file?"
        )
    strangers = sum(question is None for question, _ in found)
    more = {STRANGERS: float(strangers)} if strangers else {}
    counted, metrics, unparsed = _count(benchmark, questions, found, latest)
    return Result(
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        score=counted,
        unit=benchmark.unit,
        metrics=metrics | more,
        count=len(questions),
        missing=len(questions) - len(latest),
        duplicates=len(records) - strangers - len(latest),
        unparsed=unparsed,
    )


def _count(
    benchmark: Benchmark, questions: Sequence[Question], found: Found, latest: Latest
) -> tuple[float, dict[str, float], int]:
    strict = benchmark.strict(questions, latest)
    if "official" not in benchmark.protocols:
        return strict.score, strict.metrics, strict.unparsed
    stopped = {}
    try:
        official = benchmark.official(questions, found) or strict
    except OfficialStops as stop:
        message.warning("%s: the official code stops here, for %s; counted strictly instead", benchmark.name, stop)
        official, stopped = strict, {STOPS: 1.0}
    if benchmark.protocol == "strict":
        return strict.score, strict.metrics | {"official": official.score} | stopped, strict.unparsed
    return official.score, official.metrics | {"strict": strict.score} | stopped, strict.unparsed


def submission(benchmark: Benchmark, data: Path, answers: Iterable[Mapping[str, Any]]) -> bytes:
    """The file for the benchmark's server; of several answers to one question the last counts."""
    records = [checked(record, number) for number, record in enumerate(answers, 1)]
    return benchmark.submission(data, {str(record["question_id"]): record for record in records})


def over_runs(results: Sequence[Result]) -> Result:
    """The mean over several runs of one benchmark, with each run's score and their standard deviation; a single one
    is itself. The counts of faults add up."""
    if len(results) == 1:
        return results[0]
    scores = [result.score for result in results]
    shared = [name for name in results[0].metrics if all(name in result.metrics for result in results)]
    metrics = {name: mean(result.metrics[name] for result in results) for name in shared}
    metrics |= {f"run_{number}": value for number, value in enumerate(scores, 1)}
    metrics |= {"spread": mean((value - mean(scores)) ** 2 for value in scores) ** 0.5}
    totals = {name: sum(getattr(result, name) for result in results) for name in ("missing", "duplicates", "unparsed")}
    return replace(results[0], score=mean(scores), metrics=metrics, **totals)


def recorded(path: str | Path) -> Callable[[Iterable[Conversation]], Iterator[str]]:
    """An answer function that reads an answers file by ``question_id``.

    Raises :class:`BadRequest` for a question without an answer; :func:`score` counts such instead.
    """
    records = (checked(record, number) for number, record in enumerate(read_jsonl(path), 1))
    texts = {str(record["question_id"]): record["text"] for record in records}

    def answer(conversations: Iterable[Conversation]) -> Iterator[str]:
        for conversation in conversations:
            if conversation.id not in texts:
                raise BadRequest(f"{path} has no answer to question {conversation.id!r}")
            yield texts[conversation.id]

    return answer


def by_image(questions: Sequence[Question]) -> list[Question]:
    """The questions, those about the same picture together; else as they were."""
    groups: dict[tuple[object, ...], list[Question]] = {}
    for question in questions:
        sources = (ref.source for ref in question.conversation.images)
        key = tuple(str(source) if isinstance(source, Path) else id(source) for source in sources)
        groups.setdefault(key, []).append(question)
    return [question for group in groups.values() for question in group]


def _require_images(questions: Sequence[Question]) -> None:
    for question in questions:
        for ref in question.conversation.images:
            if isinstance(ref.source, Path) and not ref.source.is_file():
                raise BadRequest(
                    f"question {question.id!r}: no image at {ref.source}; put it there or name the folder of the images"
                )


def _resume(
    benchmark: Benchmark, order: Sequence[Question], questions: Sequence[Question], log: JsonlLog | None
) -> dict[str, dict[str, Any]]:
    """What was answered before: the log is a beginning of the order, or all questions in the official order."""
    records = log.records if log is not None else []
    asked = order
    if len(records) == len(order) and _stranger(benchmark, order, records) is not None:
        asked = questions
    wrong = _stranger(benchmark, asked, records)
    if log is not None and wrong is not None:
        raise BadRequest(
            f"{log.path}, line {wrong + 1}: answers another question than this run asks; choose another folder"
        )
    return {question.id: record for question, record in zip(asked, records, strict=False)}


def _stranger(benchmark: Benchmark, asked: Sequence[Question], records: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the first record that does not answer the question of its place."""
    for index, record in enumerate(records):
        if index >= len(asked) or any(record.get(k) != v for k, v in benchmark.record(asked[index]).items()):
            return index
    return None
