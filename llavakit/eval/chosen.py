"""Which benchmarks a run asks, and where their files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, write_json
from llavakit.base.log import log
from llavakit.eval.benchmark import Benchmark, Question
from llavakit.eval.run import BENCHMARKS

ALL = "all"


@dataclass(frozen=True)
class Chosen:
    """One benchmark of a run. ``folder``: what it is called in the run's folder."""

    folder: str
    benchmark: Benchmark
    data: Path
    images: Path | None

    def load(self) -> list[Question]:
        return self.benchmark.load(self.data, self.images)


def choose(words: str, data: Path, images: Path | None = None, protocol: str = "") -> list[Chosen]:
    """``words``: names, comma-separated, each ``NAME`` or ``NAME:PROTOCOL``; ``all`` is every benchmark that has a
    folder of its name in ``data``.

    A benchmark's files are in the folder of its name (as LLaVA or the hub may write it: ``MME``, ``mm-vet``), else in
    ``data`` itself. Raises :class:`BadRequest` for an unknown name, or ``all`` where there is no such folder.
    """
    if not data.exists():
        raise BadRequest(f"no file or folder at {data}")
    chosen: dict[str, Chosen] = {}
    for word in filter(None, words.split(",")):
        for one in _everything(data) if word == ALL else [word]:
            name, _, way = one.partition(":")
            benchmark = type(BENCHMARKS[name])(way or protocol)
            folder = f"{benchmark.name}-{way}" if way else benchmark.name
            chosen[folder] = Chosen(folder, benchmark, folder_of(benchmark, data), images)
    if not chosen:
        raise BadRequest(f"--bench names no benchmark; there are: {', '.join(BENCHMARKS.names())}, and {ALL}")
    return list(chosen.values())


def folder_of(benchmark: Benchmark, data: Path) -> Path:
    """The folder of a benchmark in ``data``, else ``data`` itself."""
    found = [path for path in sorted(data.iterdir()) if path.is_dir()] if data.is_dir() else []
    names = [_plain(name) for name in (benchmark.name, *benchmark.also)]
    return next((path for path in found if _plain(path.name) in names), data)


def claim(out: Path, model: str, how: dict[str, Any], chosen: Sequence[Chosen], write: bool = True) -> None:
    """Notes in ``out/run.json`` whose answers the folder holds and what of. Raises :class:`BadRequest` where it holds
    another model's, or answers written in another way: a folder with both would have a score of
    neither. Of several processes one writes, all look."""
    path = out / "run.json"
    before: dict[str, Any] = read_json(path) if path.is_file() else {"model": model, "how": how, "benchmarks": {}}
    for key, value in (("model", model), ("how", how)):
        if before[key] != value:
            raise BadRequest(f"{out} holds answers of {key} {before[key]!r}, not {value!r}; choose another folder")
    for one in chosen:
        before["benchmarks"][one.folder] = {
            "name": one.benchmark.name,
            "protocol": one.benchmark.protocol,
            "data": str(one.data.resolve()),
            "images": str(one.images.resolve()) if one.images else None,
        }
    if write:
        write_json(path, before)


def _everything(data: Path) -> list[str]:
    names = BENCHMARKS.names()
    there = [name for name in names if folder_of(BENCHMARKS[name], data) != data]
    if not there:
        raise BadRequest(f"no folder in {data} is named like a benchmark; there are: {', '.join(names)}")
    log.info("asking %s; no folder in %s for %s", ", ".join(there), data, ", ".join(sorted({*names} - {*there})))
    return there


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
