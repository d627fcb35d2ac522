"""What an examination amounts to: problems with their places, duplicates, contamination, statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.base.files import writing
from llavakit.data.doctor.codes import CODES, Problem
from llavakit.data.doctor.examine import Bench, File
from llavakit.data.doctor.journal import Journal
from llavakit.data.doctor.near import near_pairs
from llavakit.data.doctor.pictures import Picture
from llavakit.data.doctor.records import Row

SHOWN = 12
"""Examples of each kind of problem in a report; ``problems.jsonl`` has them all."""


@dataclass
class Totals:
    """Counts and lengths of the records of one source, or of all."""

    records: int = 0
    pictured: int = 0
    turns: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)
    supervised: int = 0
    lost: int = 0
    lost_supervised: int = 0

    def add(self, row: Row) -> None:
        self.records += 1
        self.pictured += bool(row["images"])
        self.turns += row["turns"]
        if row["tokens"]:
            tokens, supervised, lost, lost_supervised = row["tokens"]
            self.tokens.append(tokens)
            self.supervised += supervised
            self.lost += lost
            self.lost_supervised += lost_supervised

    def plain(self) -> dict[str, Any]:
        lengths = None
        if self.tokens:
            at = np.percentile(self.tokens, [0, 50, 90, 99, 100], method="nearest").tolist()
            lengths = dict(zip(("least", "median", "p90", "p99", "most"), map(int, at), strict=True))
        return {
            "records": self.records,
            "with images": self.pictured,
            "turns": self.turns,
            "tokens": sum(self.tokens) if self.tokens else None,
            "supervised tokens": self.supervised if self.tokens else None,
            "tokens cut": self.lost if self.tokens else None,
            "supervised tokens cut": self.lost_supervised if self.tokens else None,
            "length": lengths,
            "problems": dict(sorted(self.problems.items())),
        }


@dataclass
class Diagnosis:
    """The whole report. ``examples``: the first problems of each code; ``checked`` what was looked for."""

    files: list[str]
    checked: dict[str, bool]
    all: Totals = field(default_factory=Totals)
    sources: dict[str, Totals] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    same_content: int = 0
    examples: dict[str, list[Problem]] = field(default_factory=dict)
    histogram: list[tuple[int, int]] = field(default_factory=list)
    """(lower bound, records) of bins of equal width over token lengths."""

    @property
    def counts(self) -> dict[str, int]:
        """Problems by code, the gravest first."""
        return {code: self.all.problems[code] for code in CODES if self.all.problems[code]}

    @property
    def errors(self) -> int:
        return sum(count for code, count in self.counts.items() if CODES[code].grade == "error")

    def plain(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "checked": self.checked,
            "errors": self.errors,
            "problems": {
                code: {"grade": CODES[code].grade, "means": CODES[code].means, "count": count}
                for code, count in self.counts.items()
            },
            "examples": {code: [vars(problem) for problem in found] for code, found in self.examples.items()},
            "images": {"files": self.pictures, "same content as another": self.same_content},
            "languages": dict(self.languages.most_common()),
            "all": self.all.plain(),
            "sources": {name: totals.plain() for name, totals in self.sources.items()},
            "histogram": self.histogram,
        }


def diagnose(files: Sequence[File], journal: Journal, benches: Sequence[Bench], measured: bool, out: Path) -> Diagnosis:
    """Reads the finished journal; writes ``out/problems.jsonl``, every problem in the order of the records."""
    import json

    shown = Diagnosis([str(file.path) for file in files], {"length": measured, "benchmarks": bool(benches)})
    looks = _Looks(journal, benches)
    shown.pictures, shown.same_content = len(looks.paths), looks.same_content
    seen: dict[str, tuple[str, int]] = {}
    with writing(out / "problems.jsonl") as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number, examined in enumerate(files):
            for row in journal.rows(f"records {number}"):
                source = row["source"] or examined.path.stem
                totals = shown.sources.setdefault(source, Totals())
                for some in (shown.all, totals):
                    some.add(row)
                if row["language"]:
                    shown.languages[row["language"]] += 1
                for code, detail in [*map(tuple, row["problems"]), *looks.of(row), *_again(row, examined, seen)]:
                    problem = Problem(code, str(examined.path), row["line"], row["index"], row["id"], detail)
                    shown.all.problems[code] += 1
                    totals.problems[code] += 1
                    if len(found := shown.examples.setdefault(code, [])) < SHOWN:
                        found.append(problem)
                    # Absolute: the list is read later, from elsewhere.
                    place = {"file": str(examined.path.absolute())}
                    file.write(json.dumps(vars(problem) | place, ensure_ascii=False) + "\n")
    shown.examples = {code: shown.examples[code] for code in shown.counts}
    shown.histogram = _histogram(shown.all.tokens)
    return shown


def _again(row: Row, file: File, seen: dict[str, tuple[str, int]]) -> Iterator[tuple[str, str]]:
    if not row["key"]:
        return
    if row["key"] in seen:
        path, line = seen[row["key"]]
        yield "duplicate", f"as {path}, line {line}"
    else:
        seen[row["key"]] = (file.path.name, row["line"])


def _histogram(lengths: Sequence[int], bins: int = 40) -> list[tuple[int, int]]:
    if not lengths:
        return []
    width = max(1, -(-max(lengths) // bins))
    counts = np.bincount(np.asarray(lengths) // width)
    return [(number * width, count) for number, count in enumerate(counts.tolist())]


class _Looks:
    """What the image files are, and which of them look like a benchmark's or like each other."""

    def __init__(self, journal: Journal, benches: Sequence[Bench]) -> None:
        own: list[Picture] = list(journal.rows("pictures"))
        theirs: list[Picture] = list(journal.rows("benchmark pictures"))
        self.paths = [picture["path"] for picture in own]
        self.bad = {p["path"]: (p["code"], p["detail"]) for p in own if p["code"]}
        contents = Counter(p["content"] for p in own if p["content"] is not None)
        self.same_content = sum(count - 1 for count in contents.values())
        self.like: dict[str, str] = {}
        self.benchmark: dict[str, set[str]] = {}
        self._match(own, theirs)
        self.asks = {image: keys for bench in benches for image, keys in bench.questions.items()}
        self.named = {image: bench.name for bench in benches for image in bench.questions}

    def _match(self, own: list[Picture], theirs: list[Picture]) -> None:
        groups: dict[tuple[str, int], tuple[list[str], list[str]]] = {}
        for side, pictures in enumerate((own, theirs)):
            for picture in pictures:
                if picture["content"] is not None:
                    # A flat picture looks like any other: only the same file is the same.
                    look = picture["look"]
                    key = ("content", picture["content"]) if look is None else ("look", look)
                    groups.setdefault(key, ([], []))[side].append(picture["path"])
        looks = [look for kind, look in groups if kind == "look"]
        for first, *more in (mine for mine, _ in groups.values() if mine):
            self.like |= dict.fromkeys(more, first)
        for mine, others in groups.values():
            self._benchmark(mine, others)
        for i, j in near_pairs(np.array(looks, dtype=np.uint64)):
            (mine, others), (also, further) = groups["look", looks[i]], groups["look", looks[j]]
            self._benchmark(mine, further)
            self._benchmark(also, others)
            if mine and also:
                self.like.setdefault(also[0], mine[0])

    def _benchmark(self, mine: Sequence[str], theirs: Sequence[str]) -> None:
        for path in mine:
            if theirs:
                self.benchmark.setdefault(path, set()).update(theirs)

    def of(self, row: Row) -> Iterator[tuple[str, str]]:
        """Problems of a record's images, and what of it a benchmark holds."""
        asked = set(row["asked"])
        leaked = False
        for image in row["images"]:
            if image in self.bad:
                code, detail = self.bad[image]
                yield code, f"{image}: {detail}"
            for other in sorted(self.benchmark.get(image, ())):
                yield "benchmark-image", f"{image} is {self.named[other]}'s {other}"
                if asked & self.asks[other]:
                    leaked = True
                    yield "leak", f"asks {self.named[other]}'s question about {other}"
            if image in self.like:
                yield "near-duplicate", f"{image} looks like {self.like[image]}"
        if asked and not leaked:
            yield "benchmark-question", f"{len(asked)} question(s)"
