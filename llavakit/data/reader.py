"""What a source of raw annotations is: the official files read as they come, and the rules that make them LLaVA's.

A :class:`Reader` gives :class:`Talk` objects in the order of its file; its rules, each with a name and a line in the
provenance, turn them into what is written. One reader a file in ``data/sources/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest
from llavakit.base.registry import Registry
from llavakit.chat.conversation import IMAGE
from llavakit.data.dice import Dice
from llavakit.eval.source import find_all

Turn = tuple[str, str]
"""("human", "gpt" or "system", text), as LLaVA's files name them."""


@dataclass(frozen=True)
class Talk:
    """A conversation in the making. ``extra``: what rules still need (choices, boxes, captions), by name; ``part``
    keeps conversations about one image apart."""

    id: str
    turns: tuple[Turn, ...] = ()
    images: tuple[str, ...] = ()
    part: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def exchange(self, question: str, answer: str) -> Talk:
        """Itself with one question and answer for all turns."""
        return replace(self, turns=(("human", question), ("gpt", answer)))

    def record(self, source: str) -> dict[str, Any]:
        """The record in LLaVA's format; ``<image>`` goes to the head of the first question that a text lacks."""
        turns = list(self.turns)
        if self.images and not any(IMAGE in text for _, text in turns):
            first = next(i for i, (who, _) in enumerate(turns) if who == "human")
            turns[first] = ("human", f"{IMAGE}\n" * len(self.images) + turns[first][1])
        named = {"image": self.images[0] if len(self.images) == 1 else list(self.images)} if self.images else {}
        said = [{"from": who, "value": text} for who, text in turns]
        return {"id": self.id, **named, "source": source, "conversations": said}


Talks = Sequence[Talk]


@dataclass(frozen=True)
class Rule:
    """One named step. ``act`` gets the talks and dice of its own; ``says`` is its line in the provenance."""

    name: str
    says: str
    act: Callable[[Talks, Dice], Talks]


@dataclass
class Dropped:
    """What a reader left out while reading, by reason."""

    reasons: Counter[str] = field(default_factory=Counter)

    def __call__(self, reason: str) -> None:
        self.reasons[reason] += 1


class Options(Config):
    """A source's own switches; this one has none."""


O = TypeVar("O", bound=Options)  # noqa: E741


class Reader(ABC, Generic[O]):
    """Base of all sources."""

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = ()
    """Names (patterns) of the official files, all needed."""
    get: ClassVar[str] = ""
    """Where they are to be had."""
    options: ClassVar[type[Options]] = Options
    differs: ClassVar[str] = ""
    """Why a count may differ from the published one, as far as it is known."""

    def missing(self, data: Path, options: O) -> list[str]:
        """Names of files that are not there."""
        return [name for name in self.needs(options) if not find_all(data, name)]

    def needs(self, options: O) -> Sequence[str]:
        return self.files

    def inputs(self, data: Path, options: O) -> list[Path]:
        """The files that are read, for the provenance."""
        return [find_all(data, name)[0] for name in self.needs(options) if find_all(data, name)]

    @abstractmethod
    def read(self, data: Path, options: O, dropped: Dropped) -> Talks:
        """The raw talks in the file's order. Raises :class:`BadRequest` for a file that is not the official one."""

    def rules(self, options: O) -> Sequence[Rule]:
        return ()

    def talks(self, data: Path, options: O, seed: int) -> tuple[Talks, list[dict[str, Any]]]:
        """All talks, every rule applied, and the ledger: a line for reading and one for each rule."""
        dropped = Dropped()
        try:
            talks = self.read(data, options, dropped)
        except (KeyError, TypeError) as error:
            raise BadRequest(f"{self.name}: a record in {data} has not the official form ({error!r})") from error
        line: dict[str, Any] = {"rule": "read", "says": f"{self.name} as published", "conversations": len(talks)}
        ledger = [line | ({"dropped": dict(sorted(dropped.reasons.items()))} if dropped.reasons else {})]
        return apply(self.rules(options), talks, seed, self.name, ledger), ledger


def apply(rules: Sequence[Rule], talks: Talks, seed: int, name: str, ledger: list[dict[str, Any]]) -> Talks:
    """Applies the rules in order; each writes its line into ``ledger``."""
    for rule in rules:
        talks = rule.act(talks, Dice(seed, name, rule.name))
        exchanges = sum(len(talk.turns) // 2 for talk in talks)
        ledger.append({"rule": rule.name, "says": rule.says, "conversations": len(talks), "exchanges": exchanges})
    return talks


READERS = Registry("llavakit.data.sources", "SOURCE", "data source")


def file_of(data: Path, *names: str) -> Path:
    """The first of the named files that is there."""
    for name in names:
        if found := find_all(data, name):
            return found[0]
    raise BadRequest(f"no {' or '.join(names)} in {data} or up to two folders below; put it there")
