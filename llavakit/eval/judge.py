"""Benchmarks that a language model judges: LLaVA-Bench's pairwise reviews and MM-Vet's grades.

Here are what a judge is asked and how its reply is read. Who asks is not known here: a judge is a function from prompts
to replies, ``None`` where it gave none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.base.files import JsonlLog
from llavakit.base.log import progress
from llavakit.chat.conversation import Conversation
from llavakit.eval.benchmark import Benchmark, Question, Verdict


@dataclass(frozen=True)
class Request:
    """One thing to judge: ``system`` and ``prompt`` are sent; ``record`` is what the reply is filed under."""

    system: str
    prompt: str
    record: dict[str, Any]


Judge = Callable[[Iterable[Request]], Iterator[str | None]]
"""Replies in the order of the requests."""


class JudgedBenchmark(Benchmark):
    """A benchmark whose answers file is what a judge's run left; it may be scored without its question file."""

    judged = True
    question_file: str
    temperature: float
    max_new_tokens: int

    def annotations(self, data: str | Path, records: Sequence[Any]) -> list[Question]:
        """Without the question file, the questions are those that were judged."""
        if any(Path(data).rglob(self.question_file)) or any(Path(data).rglob("*.parquet")):
            return self.load(data)
        ids = dict.fromkeys(str(self.check(record, n)["question_id"]) for n, record in enumerate(records, 1))
        return [Question(id, Conversation(()), {}) for id in ids]

    def judge(self, question: Question, answer: str) -> Verdict:
        """Nothing yet: the answers of a model wait for :meth:`requests`."""
        return Verdict(0.0, answer)

    def requests(self, data: Path, answers: Sequence[dict[str, Any]]) -> list[Request]:
        """What the judge is asked about a model's answers."""
        raise NotImplementedError

    def reply(self, request: Request, text: str) -> dict[str, Any] | None:
        """The judge's reply as a line of the benchmark's own reviews, None when it can not be read."""
        raise NotImplementedError

    def together(self, runs: Sequence[Sequence[dict[str, Any]]]) -> Any:
        """The lines of all runs in the one file that the official tool reads; None where it reads a file a run."""
        return None


def run_judge(
    benchmark: JudgedBenchmark, requests: Sequence[Request], judge: Judge, model: str, out: str | Path
) -> int:
    """Asks the judge about each request and files the replies that can be read in ``out``, a JSONL that a killed run
    goes on with. Each line names the judge and the hash of what it was asked. Returns how many replies failed: they are
    not filled in, and a second run asks for them again."""
    log = JsonlLog(out)
    done = {record["prompt_sha256"] for record in log.records}
    todo = [request for request in requests if prompt_hash(request) not in done]
    failed = 0
    for request, text in zip(todo, progress(judge(todo), total=len(todo), desc="judge", unit="reply"), strict=True):
        filed = benchmark.reply(request, text) if text is not None else None
        if filed is None:
            failed += 1
        else:
            log.append(request.record | filed | {"judge": model, "prompt_sha256": prompt_hash(request)})
    return failed


def prompt_hash(request: Request) -> str:
    """SHA-256 of what is sent."""
    return hashlib.sha256(f"{request.system}\n\n{request.prompt}".encode()).hexdigest()


def pair_of_scores(review: str) -> tuple[float, float] | None:
    """The two scores on the first line of a review, as ``eval_gpt_review_bench.py`` of haotian-liu/LLaVA reads them
    (it writes [-1, -1] for None)."""
    words = review.split("\n")[0].replace(",", " ").split(" ")
    if len(words) != 2:
        return None
    first, second = number(words[0]), number(words[1])
    return None if first is None or second is None else (first, second)


def grade(content: str) -> float | None:
    """The first word of a grader's reply as a number from 0 to 1, as MM-Vet's evaluator reads it."""
    value = number(content.split(" ")[0])
    return value if value is not None and 0.0 <= value <= 1.0 else None


def number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
