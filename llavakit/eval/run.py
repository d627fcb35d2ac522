"""Runs a benchmark against a model, or scores an answers file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import JsonlLog, read_jsonl, write_json
from llavakit.base.log import progress
from llavakit.base.registry import Registry
from llavakit.chat.conversation import Conversation
from llavakit.eval.benchmark import Answer, Benchmark, Question, Result, Verdict

BENCHMARKS = Registry("llavakit.eval.tasks", "BENCHMARK", "benchmark")


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
    verdicts = _resume(benchmark, order, log)
    todo = order[len(verdicts) :]
    replies = iter(answer(q.conversation for q in todo) if todo else ())
    for question in progress(todo, total=len(todo), desc=benchmark.name, unit="question"):
        text = next(replies, None)
        if text is None:
            raise WorkFailed(f"{benchmark.name}: the model gave no answer to question {question.id!r} and stopped")
        verdict = benchmark.judge(question, text)
        verdicts[question.id] = verdict
        if log is not None:
            judged = {"text": text, "parsed": verdict.parsed, "score": verdict.score, "group": question.group}
            log.append(benchmark.record(question) | judged)
    result = _result(benchmark, questions, verdicts)
    if out is not None:
        write_json(Path(out) / "result.json", result.plain())
    return result


def score(benchmark: Benchmark, questions: Sequence[Question], answers: Iterable[Mapping[str, Any]]) -> Result:
    """Scores the records of anyone's answers file (``question_id``, ``prompt``, ``text``).

    A missing answer is wrong and counted; of two to one question the last counts and the others are counted; answers
    to no question are counted in the metrics. Raises :class:`BadRequest` when a record is malformed or when no answer
    belongs to any question.
    """
    find = benchmark.finder(questions)
    texts: dict[str, str] = {}
    total = strangers = 0
    for total, record in enumerate(answers, 1):
        id = find(_checked(record, total))
        if id is None:
            strangers += 1
        else:
            texts[id] = record["text"]
    if total and not texts:
        raise BadRequest(
            f"none of the {total} answers belongs to a question of {benchmark.name}; is it the right file?"
        )
    verdicts = {q.id: benchmark.judge(q, texts[q.id]) for q in questions if q.id in texts}
    more = {"answers to no question (count)": float(strangers)} if strangers else {}
    return _result(benchmark, questions, verdicts, total - strangers - len(texts), more)


def recorded(path: str | Path) -> Callable[[Iterable[Conversation]], Iterator[str]]:
    """An answer function that reads an answers file by ``question_id``.

    Raises :class:`BadRequest` for a question without an answer; :func:`score` counts such instead.
    """
    records = (_checked(record, number) for number, record in enumerate(read_jsonl(path), 1))
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


def _checked(record: Any, number: int) -> Mapping[str, Any]:
    if not isinstance(record, Mapping) or "question_id" not in record or not isinstance(record.get("text"), str):
        raise BadRequest(f"answer {number} must be a mapping with a question_id and a text, got {str(record)[:100]}")
    return record


def _require_images(questions: Sequence[Question]) -> None:
    for question in questions:
        for ref in question.conversation.images:
            if isinstance(ref.source, Path) and not ref.source.is_file():
                raise BadRequest(
                    f"question {question.id!r}: no image at {ref.source}; put it there or name the folder of the images"
                )


def _resume(benchmark: Benchmark, order: Sequence[Question], log: JsonlLog | None) -> dict[str, Verdict]:
    """Verdicts on what was answered before: the log is a beginning of the order, record by record."""
    verdicts: dict[str, Verdict] = {}
    if log is None:
        return verdicts
    for number, record in enumerate(log.records, 1):
        question = order[number - 1] if number <= len(order) else None
        if question is None or any(record.get(k) != v for k, v in benchmark.record(question).items()):
            raise BadRequest(
                f"{log.path}, line {number}: answers another question than this run asks; choose another folder"
            )
        verdicts[question.id] = benchmark.judge(question, record["text"])
    return verdicts


def _result(
    benchmark: Benchmark,
    questions: Sequence[Question],
    verdicts: Mapping[str, Verdict],
    duplicates: int = 0,
    more: Mapping[str, float] | None = None,
) -> Result:
    judged = [(q, verdicts.get(q.id, Verdict(0.0, ""))) for q in questions]
    headline, metrics = benchmark.summarize(judged)
    return Result(
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        score=headline,
        unit=benchmark.unit,
        metrics=metrics | dict(more or {}),
        count=len(questions),
        missing=len(questions) - len(verdicts),
        duplicates=duplicates,
        unparsed=sum(not verdict.parsed for verdict in verdicts.values()),
    )
