"""Two runs over the same questions: which is better, by how much, and how sure that is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from llavakit.base.errors import BadRequest
from llavakit.eval.benchmark import Benchmark, Tally
from llavakit.eval.held import Held, Run
from llavakit.eval.resample import holm, paired

Pair = tuple[dict[str, Any], dict[str, Any]]
"""The two answers to one question."""


@dataclass(frozen=True)
class Comparison:
    """One benchmark of two runs. ``count``: questions that both answered, over which all else is; ``unpaired``: answers
    without a counterpart. ``interval`` and ``p`` draw pictures (:mod:`llavakit.eval.resample`), ``p_corrected``
    minds how many benchmarks are compared. ``first_better``, ``second_better``: questions with a better answer."""

    folder: str
    unit: str
    count: int
    unpaired: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    p: float
    p_corrected: float
    first_better: int
    second_better: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: Run, second: Run) -> list[Comparison]:
    """Of every benchmark that both have. Raises :class:`BadRequest` where there is none."""
    both = [name for name in first.benchmarks if name in second.benchmarks]
    if not both:
        raise BadRequest(
            f"no benchmark is in both {first.place} ({', '.join(first.benchmarks)}) and {second.place} "
            f"({', '.join(second.benchmarks)})"
        )
    scored = [name for name in both if first.benchmarks[name].judged and second.benchmarks[name].judged]
    if not scored:
        raise BadRequest(f"no judge has reviewed {', '.join(both)} in both runs; llavakit judge does")
    found = [_compared(first.benchmarks[name], second.benchmarks[name]) for name in scored]
    corrected = holm([one.p for one in found])
    return [replace(one, p_corrected=p) for one, p in zip(found, corrected, strict=True)]


def pairs(first: Held, second: Held) -> list[Pair]:
    """The answers to each question, in the order of the first run. Raises :class:`BadRequest` where the runs share no
    question: the same benchmark may be asked in two ways."""
    waiting: dict[Any, list[dict[str, Any]]] = {}
    for record in second.records:
        waiting.setdefault(_key(record), []).append(record)
    matched = [(record, waiting[_key(record)].pop(0)) for record in first.records if waiting.get(_key(record))]
    if not matched:
        raise BadRequest(f"{first.folder}: the two runs did not ask the same questions; was the protocol the same?")
    return matched


def counts(record: Mapping[str, Any]) -> bool:
    """Whether an answer is scored, and not only asked for."""
    return record.get("tally") != {}


def _compared(first: Held, second: Held) -> Comparison:
    # A question of which a judge read one answer only would weigh for that one alone.
    matched = [(a, b) for a, b in pairs(first, second) if counts(a) == counts(b)]
    one, other = ([_tally(pair[side]) for pair in matched] for side in (0, 1))
    interval, p = paired(one, other, [a["image"] for a, _ in matched], first.benchmark.headline)
    scores = [_headline(first.benchmark, tallies) for tallies in (one, other)]
    return Comparison(
        folder=first.folder,
        unit=first.benchmark.unit,
        count=len(matched),
        unpaired=len(first.records) + len(second.records) - 2 * len(matched),
        first=scores[0],
        second=scores[1],
        difference=scores[1] - scores[0],
        interval=interval,
        p=p,
        p_corrected=p,
        first_better=sum(a["score"] > b["score"] for a, b in matched if counts(a)),
        second_better=sum(a["score"] < b["score"] for a, b in matched if counts(a)),
    )


def _headline(benchmark: Benchmark, tallies: Sequence[Tally]) -> float:
    sums: dict[str, Any] = defaultdict(lambda: np.zeros(()))
    for tally in tallies:
        for name, value in tally.items():
            sums[name] += value
    return float(benchmark.headline(sums))


def _tally(record: Mapping[str, Any]) -> Tally:
    found: Tally = record.get("tally", {"score": record["score"], "count": 1.0})
    return found


def _key(record: Mapping[str, Any]) -> tuple[str, Any]:
    return str(record["question_id"]), record.get("prompt")
