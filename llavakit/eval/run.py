"""Runs a benchmark against a model, or scores an answers file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import write_json
from llavakit.base.log import log as message
from llavakit.base.log import progress
from llavakit.base.registry import Registry
from llavakit.eval.answers import Answered, answered, merge, own_log, wait
from llavakit.eval.benchmark import (
    STOPS,
    Answer,
    Benchmark,
    Counted,
    Found,
    OfficialStops,
    Question,
    Result,
    Tally,
    checked,
    mean,
)
from llavakit.eval.order import ALONE, Share, picture_names, share_of

BENCHMARKS = Registry("llavakit.eval.tasks", "BENCHMARK", "benchmark")
STRANGERS = "answers to no question (count)"


def evaluate(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answer: Answer,
    out: str | Path | None = None,
) -> Result:
    """Asks, judges and sums up, in one process. With ``out``, ``answers.jsonl`` grows there with every answer, so a
    killed run goes on where it stopped, and ``result.json`` is written at the end (:func:`finish` says what both hold).

    Raises :class:`BadRequest` when a picture is missing or ``out`` holds another run's answers, :class:`WorkFailed`
    when the model stops before the last question.
    """
    out = Path(out) if out is not None else None
    return finish(benchmark, questions, ask(benchmark, questions, answer, out), out)


def ask(
    benchmark: Benchmark, questions: Sequence[Question], answer: Answer, out: Path | None, share: Share = ALONE
) -> Answered:
    """The answers of this process, and what was answered before, by question id.

    Questions about one picture are asked in a row: an engine can share their prefix. The order does not depend on
    anything else. Several processes share an ``out`` on a disk that all of them see, and :func:`collect` has them all.
    """
    require_images(questions)
    log = own_log(out, share) if out is not None else None
    done = answered(benchmark, questions, out) if out is not None else {}
    todo = [question for question in share_of(questions, share) if question.id not in done]
    replies = iter(answer(q.conversation for q in todo) if todo else ())
    for question in progress(todo, total=len(todo), desc=benchmark.name, unit="question"):
        text = next(replies, None)
        if text is None:
            raise WorkFailed(f"{benchmark.name}: the model gave no answer to question {question.id!r} and stopped")
        # As LLaVA's own answers files have it, and as an endpoint's client gives it.
        text = text.strip()
        done[question.id] = benchmark.record(question) | {"text": text}
        if log is not None:
            log.append(done[question.id] | _seen(benchmark, question, text))
    return done


def collect(benchmark: Benchmark, questions: Sequence[Question], out: Path) -> Result:
    """The result of what several processes answered, as soon as the last of them is there."""
    return finish(benchmark, questions, wait(benchmark, questions, out), out)


def finish(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answers: Answered,
    out: Path | None,
    records: Sequence[Mapping[str, Any]] | None = None,
) -> Result:
    """The result. In ``out`` it is written, and ``answers.jsonl`` in the official order (official codes that pair
    answers with labels by position then read it right): LLaVA's answers format with ``parsed``, ``score``, ``group``,
    ``truth``, ``image`` (what the picture is called here) and ``tally`` where that is not the score of one question.

    ``records``: what is scored, where it is not one answer to every question.
    """
    asked = [question for question in questions if question.id in answers]
    if benchmark.judged:
        result, tallies = _unjudged(benchmark, questions), None
    else:
        result, tallies = _scored(benchmark, questions, records or [answers[question.id] for question in asked])
    if out is not None:
        names = picture_names(questions)
        tally = dict(zip((q.id for q in questions), tallies or (), strict=False))
        kept = []
        for q in asked:
            seen = _seen(benchmark, q, answers[q.id]["text"])
            seen |= {"truth": benchmark.shown_truth(q), "image": names[q.id]}
            if q.id in tally and tally[q.id] != {"score": seen["score"], "count": 1.0}:
                seen["tally"] = dict(tally[q.id])
            kept.append(benchmark.record(q) | {"text": answers[q.id]["text"]} | seen)
        merge(kept, out)
        write_json(out / "result.json", result.plain())
    return result


def take(benchmark: Benchmark, questions: Sequence[Question], records: Iterable[Any], out: Path | None) -> Result:
    """As :func:`finish`, of an answers file that someone else wrote: scored as it is, kept one answer a question."""
    # A judged benchmark's own check and finder are for its judge's reviews.
    check = checked if benchmark.judged else benchmark.check
    records = [check(record, number) for number, record in enumerate(records, 1)]
    named = {str(benchmark.record(q)["question_id"]): q.id for q in questions}
    find = benchmark.finder(questions)
    ids = [named.get(str(r["question_id"])) if benchmark.judged else find(r) for r in records]
    latest = {id: dict(record) for id, record in zip(ids, records, strict=True) if id is not None}
    if records and not latest:
        raise _wrong_file(benchmark, len(records))
    return finish(benchmark, questions, latest, out, records)


def _seen(benchmark: Benchmark, question: Question, text: str) -> dict[str, Any]:
    verdict = benchmark.judge(question, text)
    return {"parsed": verdict.parsed, "score": verdict.score, "group": question.group}


def _unjudged(benchmark: Benchmark, questions: Sequence[Question]) -> Result:
    waiting = {"not judged yet (count)": float(len(questions))}
    return Result(benchmark.name, benchmark.protocol, 0.0, benchmark.unit, waiting, len(questions))


def score(benchmark: Benchmark, questions: Sequence[Question], answers: Iterable[Mapping[str, Any]]) -> Result:
    """Scores the records of anyone's answers file (``question_id``, ``prompt``, ``text``).

    The headline is the count that the benchmark's protocol names; the other count stands in the metrics, as
    ``strict`` or ``official``. Where the official code ends with an error, the honest count stands for it, a warning
    says why and the metric ``official_stops`` is 1. Answers to no question are counted in the metrics. Raises
    :class:`BadRequest` when a record is malformed or when no answer belongs to any question.
    """
    return _scored(benchmark, questions, answers)[0]


def _scored(
    benchmark: Benchmark, questions: Sequence[Question], answers: Iterable[Mapping[str, Any]]
) -> tuple[Result, Sequence[Tally] | None]:
    """The result, and the strict count's tallies."""
    find, by_id = benchmark.finder(questions), {q.id: q for q in questions}
    records = [benchmark.check(record, number) for number, record in enumerate(answers, 1)]
    found: Found = [(by_id.get(find(record) or ""), record) for record in records]
    latest = {question.id: record for question, record in found if question is not None}
    if records and not latest:
        raise _wrong_file(benchmark, len(records))
    strangers = sum(question is None for question, _ in found)
    more = {STRANGERS: float(strangers)} if strangers else {}
    strict = benchmark.strict(questions, latest)
    counted, metrics, unparsed = _count(benchmark, questions, found, strict)
    result = Result(
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        score=counted,
        unit=benchmark.unit,
        metrics=metrics | more,
        count=len(questions),
        missing=len(questions) - len(latest),
        duplicates=len(records) - strangers - len(latest),
        unparsed=unparsed,
        interval=_interval(benchmark, questions, strict.tallies),
    )
    return result, strict.tallies


def _wrong_file(benchmark: Benchmark, count: int) -> BadRequest:
    return BadRequest(f"none of the {count} answers belongs to a question of {benchmark.name}; is it the right file?")


def _interval(
    benchmark: Benchmark, questions: Sequence[Question], tallies: Sequence[Tally] | None
) -> tuple[float, float] | None:
    from llavakit.eval.resample import interval

    names = picture_names(questions)
    return interval(tallies, [names[q.id] for q in questions], benchmark.headline) if tallies else None


def _count(
    benchmark: Benchmark, questions: Sequence[Question], found: Found, strict: Counted
) -> tuple[float, dict[str, float], int]:
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
    return replace(results[0], score=mean(scores), metrics=metrics, interval=None, **totals)


def require_images(questions: Sequence[Question]) -> None:
    """Raises :class:`BadRequest` naming the first picture that is not there."""
    for question in questions:
        for ref in question.conversation.images:
            if isinstance(ref.source, Path) and not ref.source.is_file():
                raise BadRequest(
                    f"question {question.id!r}: no image at {ref.source}; put it there or name the folder of the images"
                )
