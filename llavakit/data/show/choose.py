"""Which records a page shows: some of each source and of each problem, and a larger sample that is only measured."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llavakit.data.dice import Dice
from llavakit.data.mixture import SourceSpec
from llavakit.data.stream import Item, survey

Place = tuple[str, int]
"""(absolute path of the file, number of the record)."""


@dataclass
class Chosen:
    """``shown`` in the order of the files; ``measured`` in an order by chance; ``counts``: all records, by source."""

    shown: list[tuple[str, SourceSpec, Item]] = field(default_factory=list)
    measured: list[tuple[str, SourceSpec, Item]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def choose(
    specs: Mapping[str, SourceSpec], each: int, measured: int, problems: Mapping[Place, Any], seed: int
) -> Chosen:
    """Reads the files once, in memory that does not grow with them. ``each``: so many records of every source and
    (where ``problems`` has their places) of every kind of problem. Lots are drawn by hash, not by order."""
    dice = Dice(seed, "show")
    chosen = Chosen()
    pools: dict[str, _Lowest] = {}
    sample = _Lowest(measured)
    wanted: dict[str, int] = {}
    for name, spec in specs.items():
        for item in survey(spec.path):
            if not item.error and not spec.keep(item.value):
                continue
            source = source_of(item, name)
            chosen.counts[source] = chosen.counts.get(source, 0) + 1
            lot = dice.roll((name, item.index))
            entry = (source, spec, item)
            sample.add(lot, entry)
            pools.setdefault(f"source {source}", _Lowest(each)).add(lot, entry)
            for code, _ in problems.get(place_of(spec, item), ()):
                if wanted.setdefault(code, 0) < each:
                    wanted[code] += 1
                    pools.setdefault(f"problem {code}", _Lowest(each)).add(lot, entry)
    seen: set[Place] = set()
    for pool in pools.values():
        for entry in sorted(pool.entries(), key=lambda e: e[2].index):
            place = place_of(*entry[1:])
            if place not in seen:
                seen.add(place)
                chosen.shown.append(entry)
    chosen.measured = list(sample.entries())
    return chosen


def place_of(spec: SourceSpec, item: Item) -> Place:
    """Where a record stands."""
    return str(Path(spec.path).absolute()), item.index


def source_of(item: Item, name: str) -> str:
    """What the record itself says that it is from, else the name of its file in the mixture."""
    said = item.value.get("source") if isinstance(item.value, dict) else None
    return str(said or name)


def read_problems(folder: Path) -> dict[Place, list[tuple[str, str]]]:
    """The doctor's findings by place: (code, detail). Empty where it has not been."""
    found: dict[Place, list[tuple[str, str]]] = {}
    path = folder / "problems.jsonl"
    if path.is_file():
        with open(path, encoding="utf-8") as file:
            for line in file:
                problem = json.loads(line)
                found.setdefault((problem["file"], problem["index"]), []).append((problem["code"], problem["detail"]))
    return found


class _Lowest:
    """The entries of the lowest ``size`` lots."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.heap: list[tuple[int, int, Any]] = []
        self.number = 0

    def add(self, lot: int, entry: Any) -> None:
        self.number += 1
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, (-lot, self.number, entry))
        elif self.heap and -lot > self.heap[0][0]:
            heapq.heapreplace(self.heap, (-lot, self.number, entry))

    def entries(self) -> Iterator[Any]:
        """From the lowest lot on."""
        return (entry for _, _, entry in sorted(self.heap, key=lambda held: -held[0]))
