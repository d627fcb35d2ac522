"""Runs a job: asks what is still to be asked, writes what is fit, sets aside what is not, and counts both."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from llavakit.base.files import write_json, writing
from llavakit.base.log import log, progress, table
from llavakit.endpoint.client import Client
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.meter import Meter, OverBudget, Prices
from llavakit.endpoint.request import Failure, Usage
from llavakit.teacher.check import Rejected
from llavakit.teacher.job import Case, Job


@dataclass
class Count:
    """Of one kind: ``kept`` includes ``second`` (fit when asked again); ``open``: no answer, or not asked yet."""

    asked: int = 0
    kept: int = 0
    second: int = 0
    aside: int = 0
    open: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def plain(self) -> dict[str, Any]:
        return {**vars(self), "reasons": dict(self.reasons.most_common())}


@dataclass
class Outcome:
    """``failures``: by key of the question; ``stopped``: why the run ended before everything was asked, or empty."""

    failures: dict[str, Failure] = field(default_factory=dict)
    stopped: str = ""


def journal_of(out: Path) -> Path:
    """Where the answers for ``out`` are kept: ``out`` can be made from them again, without asking."""
    return out.with_name(f"{out.stem}.journal.jsonl")


def ask(job: Job, client: Client) -> Outcome:
    """Asks until every case is closed, failed, or the budget is spent. All answers are in the client's journal.

    Raises :class:`~llavakit.base.errors.WorkFailed` when the endpoint is down or wants another key.
    """
    outcome = Outcome()
    try:
        # Twice: the second time for what was unfit the first time.
        for number, desc in ((len(job), "asking"), (None, "asking again")):
            requests = job.requests(client.journal, outcome.failures)
            for result in progress(client.answers(requests), total=number, desc=desc, unit="answer"):
                if isinstance(result, Failure):
                    if all(result.reason != failure.reason for failure in outcome.failures.values()):
                        log.warning("no answer: %s", result.reason)
                    outcome.failures[result.key] = result
    except OverBudget as error:
        outcome.stopped = str(error)
    return outcome


def finish(job: Job, journal: Journal, meter: Meter, out: Path, outcome: Outcome) -> dict[str, Any]:
    """Writes ``out`` (LLaVA's JSON), beside it ``.rejected.jsonl`` and ``.teach.json``, and returns the latter.

    The files are a function of the job, the journal and the failures.
    """
    counts = {kind.name: Count() for kind in job.kinds}
    models: Counter[str] = Counter()
    rejected_path = out.with_name(f"{out.stem}.rejected.jsonl")
    with (
        writing(out) as kept_file,
        writing(rejected_path) as rejected_file,
        open(kept_file, "w", encoding="utf-8") as kept,
        open(rejected_file, "w", encoding="utf-8") as rejected,
    ):
        lines = _List(kept)
        for case in job.cases(journal):
            count = counts[case.kind.name]
            count.asked += 1
            models.update(reply.model for reply in case.replies)
            if case.dialogue is not None:
                count.kept += 1
                count.second += len(case.replies) > 1
                lines.add(case.record(meter.prices))
            elif why := _why(case, outcome):
                count.aside += 1
                count.reasons[why[-1].rule] += 1
                rejected.write(json.dumps(_aside(case, why), ensure_ascii=False) + "\n")
            else:
                count.open += 1
        lines.close()
    summary = {
        "kinds": {name: count.plain() for name, count in counts.items()},
        "teacher": {**job.about, "answered by": dict(models)},
        "tokens": {"prompt": meter.prompt, "answer": meter.answer, "estimated": meter.estimated},
        "cost": meter.money,
        "stopped": outcome.stopped,
        "failures": dict(Counter(failure.reason for failure in outcome.failures.values() if not failure.refused)),
    }
    write_json(out.with_name(f"{out.stem}.teach.json"), summary)
    return summary


def estimate(job: Job, journal: Journal, prices: Prices | None) -> dict[str, Any]:
    """What asking the rest would take, by estimate: ``typical``, and ``most`` when every answer is as long as allowed.
    Answers that have to be asked for again come on top."""
    prompt = typical = most = number = unusable = 0
    for case in progress(job.cases(journal), total=len(job), desc="estimating", unit="case"):
        if case.request is not None:
            number += 1
            prompt += case.request.prompt_tokens
            typical += min(case.kind.typical, case.request.most_tokens or case.kind.typical)
            most += case.request.most_tokens
        elif not case.replies:
            unusable += 1
            if unusable == 1:
                log.warning("%s", case.rejected[-1])
    answers = {"typical": typical, "most": most}
    return {
        "questions": number,
        "answered": len(job) - number - unusable,
        "unusable": unusable,
        "prompt_tokens": prompt,
        "answer_tokens": answers,
        "cost": {name: prices.of(Usage(prompt, n)) for name, n in answers.items()} if prices else None,
    }


def tables(summary: dict[str, Any]) -> str:
    """What was kept of each kind, why the rest was not, and what it cost, as plain text."""
    counts = summary["kinds"]
    columns = ("asked", "kept", "second", "aside", "open")
    rows = [[name, *(str(count[key]) for key in columns)] for name, count in counts.items()]
    parts = [table(rows, ["kind", "asked", "kept", "of them at 2nd", "set aside", "open"])]
    reasons = [[name, why, str(n)] for name, count in counts.items() for why, n in count["reasons"].items()]
    if reasons:
        parts.append(table(reasons, ["kind", "set aside for", "number"]))
    tokens, about = summary["tokens"], " (partly estimated)" if summary["tokens"]["estimated"] else ""
    cost = "" if summary["cost"] is None else f", cost {summary['cost']:.4f}"
    parts.append(f"{tokens['prompt']:,} prompt and {tokens['answer']:,} answer tokens{about}{cost}")
    return "\n\n".join(parts)


def _why(case: Case, outcome: Outcome) -> tuple[Rejected, ...]:
    """Why a case is set aside; empty while it is open."""
    if case.request is None:
        return case.rejected
    failure = outcome.failures.get(case.request.key)
    return (*case.rejected, Rejected("refused by the endpoint", failure.reason)) if failure and failure.refused else ()


def _aside(case: Case, why: Iterable[Rejected]) -> dict[str, Any]:
    where = {"id": case.context.id, "image": case.context.image, "kind": case.kind.name}
    return {**where, "reasons": [str(one) for one in why], "answers": [reply.text for reply in case.replies]}


class _List:
    """A JSON list written as it grows, one record a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._any = False

    def add(self, record: Any) -> None:
        self._file.write(f"{',' if self._any else '['}\n{json.dumps(record, ensure_ascii=False)}")
        self._any = True

    def close(self) -> None:
        self._file.write("\n]\n" if self._any else "[]\n")
