"""A run as it lies in its folder: whose answers, to which benchmarks, with what result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import question
from llavakit.eval.answers import NAME
from llavakit.eval.benchmark import Benchmark, Question, Result, Tally, mean
from llavakit.eval.judge import JudgedBenchmark
from llavakit.eval.run import BENCHMARKS

JUDGE = "judge"
"""Where in a benchmark's folder of the run its judge's reviews are looked for."""


@dataclass(frozen=True)
class Held:
    """One benchmark of a run. ``records``: the lines of ``answers.jsonl``. ``judged``: whether it has its score."""

    folder: str
    benchmark: Benchmark
    result: Result
    records: list[dict[str, Any]]
    data: Path | None
    images: Path | None
    judged: bool = True


@dataclass(frozen=True)
class Run:
    """``name``: the model's, as a person would call it."""

    place: Path
    name: str
    benchmarks: dict[str, Held]


def read_run(place: Path) -> Run:
    """The run in a folder that ``llavakit eval --out`` wrote. Raises :class:`BadRequest` where there is none."""
    if not place.is_dir():
        raise BadRequest(f"no folder at {place}; make one with llavakit eval --out {place}")
    noted = place / "run.json"
    about: dict[str, Any] = read_json(noted) if noted.is_file() else {"model": str(place), "benchmarks": {}}
    folders = list(about["benchmarks"]) or sorted(path.parent.name for path in place.glob("*/result.json"))
    found = [name for name in folders if (place / name / "result.json").is_file()]
    if not found:
        raise BadRequest(f"no result in {place}; finish its run with llavakit eval --out {place}")
    held = {name: _held(place / name, about["benchmarks"].get(name, {})) for name in found}
    return Run(place, _short(about["model"]), held)


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The runs under names that differ: by number, where one model was run twice."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.name} ({number})" if names.count(run.name) > 1 else run.name)
        for number, run in enumerate(runs, 1)
    ]


def _held(place: Path, about: Mapping[str, Any]) -> Held:
    result = _result(read_json(place / "result.json"), place / "result.json")
    benchmark = type(BENCHMARKS[result.benchmark])(result.protocol)
    records = read_jsonl(place / NAME)
    if any("image" not in record for record in records):
        raise BadRequest(f"{place} was written by an older version; the same llavakit eval command mends it, unasked")
    data, images = (Path(about[key]) if about.get(key) else None for key in ("data", "images"))
    judged = True
    if isinstance(benchmark, JudgedBenchmark):
        reviews = sorted((place / JUDGE).glob("run-*.jsonl"))
        judged = bool(reviews) and (place / JUDGE / "judge.json").is_file()
        if judged:
            about_judge = read_json(place / JUDGE / "judge.json")
            result = _result(about_judge["result"], place / JUDGE / "judge.json")
            records = _reviewed(benchmark, records, reviews)
    return Held(place.name, benchmark, result, records, data, images, judged)


def _result(value: Any, path: Path) -> Result:
    try:
        result = Result(**value)
    except TypeError as error:
        raise BadRequest(f"{path} is no result of llavakit eval: {error}") from None
    return result


def _reviewed(
    benchmark: JudgedBenchmark, records: Sequence[dict[str, Any]], reviews: Sequence[Path]
) -> list[dict[str, Any]]:
    """The answers with what their judge gave them, the mean over its runs; those it failed at count for nothing."""
    tallies: dict[Any, list[Tally]] = {}
    for path in reviews:
        lines = {str(line["question_id"]): line for line in benchmark.answers(path)}
        questions = [Question(id, question("", id=id), {"number": line["question_id"]}) for id, line in lines.items()]
        for one, tally in zip(questions, benchmark.strict(questions, lines).tallies or (), strict=True):
            tallies.setdefault(str(benchmark.record(one)["question_id"]), []).append(tally)
    made = []
    for record in records:
        own = [tally for tally in tallies.get(str(record["question_id"]), []) if tally]
        tally = {name: mean(one[name] for one in own) for name in own[0]} if own else {}
        score = float(benchmark.headline({name: np.asarray(value) for name, value in tally.items()})) if tally else 0.0
        made.append(record | {"tally": tally, "score": min(1.0, score / 100.0)})
    return made


def _short(model: str) -> str:
    """A directory by its last two names: ``runs/demo/model`` is "demo/model"."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() else model
