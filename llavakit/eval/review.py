"""A judge behind an endpoint: several runs over a model's answers, with their spread, and what it failed at."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llavakit.base.errors import WorkFailed
from llavakit.base.files import read_jsonl, write_json, write_text
from llavakit.base.log import log
from llavakit.endpoint import request as wire
from llavakit.endpoint.client import Client
from llavakit.eval.benchmark import Result
from llavakit.eval.judge import JudgedBenchmark, Request, prompt_hash, run_judge
from llavakit.eval.run import over_runs, score

TRIES = 3  # for a reply that can not be read; then the question is left out and reported


@dataclass
class Asker:
    """One run of a judge: the :data:`~llavakit.eval.judge.Judge` that asks ``client``.

    ``body``: what every request holds beside its messages, ``model`` at least; a None takes a default out. Runs differ
    in ``run`` alone, so that each asks anew and a killed one goes on from the client's journal.
    """

    benchmark: JudgedBenchmark
    client: Client
    body: Mapping[str, Any]
    run: int
    failures: list[dict[str, Any]] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)

    def __call__(self, requests: Iterable[Request]) -> Iterator[str | None]:
        """Readable replies in order, None where there is none in :data:`TRIES` tries."""
        requests = list(requests)
        texts: dict[int, str] = {}
        why: dict[int, str] = {}
        left = list(range(len(requests)))
        for number in range(TRIES):
            asked = [self._wire(requests[i], number) for i in left]
            for i, outcome in zip(left, self.client.answers(asked), strict=True):
                if isinstance(outcome, wire.Failure):
                    why[i] = outcome.reason
                elif self.benchmark.reply(requests[i], outcome.text) is None:
                    why[i] = f"unreadable: {outcome.text[:200]!r}"
                else:
                    texts[i] = outcome.text
                    self.versions[" ".join(filter(None, [outcome.model, outcome.fingerprint]))] += 1
            left = [i for i in left if i not in texts]
        for i in left:
            self.failures.append({"run": self.run, **requests[i].record, "reason": why[i]})
        yield from (texts.get(i) for i in range(len(requests)))

    def _wire(self, request: Request, number: int) -> wire.Request:
        system = [{"role": "system", "content": request.system}] if request.system else []
        body = {
            "messages": [*system, {"role": "user", "content": request.prompt}],
            "temperature": self.benchmark.temperature,
            "max_tokens": self.benchmark.max_new_tokens,
            **self.body,
        }
        return wire.Request({k: v for k, v in body.items() if v is not None}, trial=TRIES * (self.run - 1) + number)


def review(
    benchmark: JudgedBenchmark,
    data: Path,
    answers: Sequence[dict[str, Any]],
    client: Client,
    body: Mapping[str, Any],
    runs: int,
    out: Path,
) -> tuple[Result, dict[str, Any]]:
    """Judges ``answers`` ``runs`` times. Returns the result over the runs, and what ``out/judge.json`` says.

    Writes ``out/run-1.jsonl`` and on (LLaVA's reviews, or grades), in one file too where the official tool wants that
    (``out/grades.json``), and ``out/failures.jsonl``. What the judge failed at is in none of them but the last:
    nothing is filled in. Raises :class:`~llavakit.base.errors.BadRequest` when a question has no answer to judge,
    :class:`WorkFailed` when not one reply can be read.
    """
    requests = benchmark.requests(data, answers)
    prompts = hashlib.sha256("\n".join(map(prompt_hash, requests)).encode()).hexdigest()[:16]
    client.journal.settle({**body, "questions": prompts})
    done: list[list[dict[str, Any]]] = []
    failures: list[dict[str, Any]] = []
    versions: Counter[str] = Counter()
    for run in range(1, runs + 1):
        asker = Asker(benchmark, client, body, run)
        path = out / f"run-{run}.jsonl"
        path.unlink(missing_ok=True)  # made anew from the journal: what is paid for lies there
        if run_judge(benchmark, requests, asker, str(body["model"]), path):
            log.warning("run %d: no readable reply to %d of %d", run, len(asker.failures), len(requests))
        done.append(read_jsonl(path))
        if not done[-1]:
            raise WorkFailed(f"run {run}: the judge gave no readable reply, the last: {asker.failures[-1]['reason']}")
        failures += asker.failures
        versions += asker.versions
    write_text(out / "failures.jsonl", "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in failures))
    together = benchmark.together(done)
    if together is not None:
        write_json(out / "grades.json", together)
    results = []
    for number in range(1, runs + 1):
        records = benchmark.answers(out / f"run-{number}.jsonl")
        results.append(score(benchmark, benchmark.annotations(data, records), records))
    result = over_runs(results)
    about = {
        "benchmark": benchmark.name,
        "judge": dict(body),
        "answered_by": dict(versions),
        "prompts": prompts,
        "runs": [one.score for one in results],
        "failures": len(failures),
        "tokens": {"prompt": client.meter.prompt, "answer": client.meter.answer, "estimated": client.meter.estimated},
        "cost": client.meter.money,
        "result": asdict(result),
    }
    write_json(out / "judge.json", about)
    return result, about
