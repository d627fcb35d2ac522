"""The answers of a run on disk: one file as long as one process asks, one more for each of several; merged at the end.

Nothing but the files is needed to go on after a kill, with the same number of processes or another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, write_text
from llavakit.base.log import log
from llavakit.eval.benchmark import Benchmark, Question
from llavakit.eval.order import Share

NAME = "answers.jsonl"
_POLL, _SAY = 1.0, 60.0  # seconds

Answered = dict[str, dict[str, Any]]
"""The record of each question id that has one."""


def own_log(out: Path, share: Share) -> JsonlLog:
    """Where this process writes."""
    return JsonlLog(out / (NAME if share.world == 1 else f"answers.{share.rank}.jsonl"))


def answered(benchmark: Benchmark, questions: Sequence[Question], out: Path) -> Answered:
    """What all processes have left in ``out``. Raises :class:`BadRequest` where it is an answer to another question."""
    waiting: dict[tuple[Any, ...], list[str]] = {}
    for question in questions:
        waiting.setdefault(tuple(benchmark.record(question).values()), []).append(question.id)
    fields = list(benchmark.record(questions[0]))
    found: Answered = {}
    # The merged file last: when it replaces the others while they are read, nothing is missed.
    for path in [*_parts(out), out / NAME]:
        for number, record in _whole_lines(path):
            ids = waiting.get(tuple(record.get(field) for field in fields))
            if ids is None:
                raise BadRequest(
                    f"{path}, line {number}: answers another question than this run asks; choose another folder"
                )
            # Two questions may be the same to the letter: then each takes one of the answers.
            id = next((id for id in ids if id not in found), ids[-1])
            found.setdefault(id, record)
    return found


def wait(benchmark: Benchmark, questions: Sequence[Question], out: Path) -> Answered:
    """All answers, as soon as the other processes have written theirs. A process that dies leaves the rest waiting;
    torchrun ends them all then."""
    said = time.monotonic()
    while len(found := answered(benchmark, questions, out)) < len(questions):
        if time.monotonic() - said > _SAY:
            said = time.monotonic()
            log.info("%s: waiting for %d answers of the other processes", benchmark.name, len(questions) - len(found))
        time.sleep(_POLL)
    return found


def merge(records: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Leaves one file, with ``records`` in their order."""
    write_text(out / NAME, "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records))
    for path in _parts(out):
        path.unlink()


def _parts(out: Path) -> list[Path]:
    return sorted(out.glob("answers.*.jsonl"))


def _whole_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records with their line. A line without its end is not read: another process may be writing it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BadRequest(f"{path}, line {number}: broken JSON: {error}") from None
        if not isinstance(record, dict):
            raise BadRequest(f"{path}, line {number}: no record of an answer")
        yield number, record
