"""Blend: what ``llavakit data build`` makes, as a value: raw sources, how much of each, and their switches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from llavakit.base.config import Config, load_mapping
from llavakit.base.registry import Registry
from llavakit.data.dice import Dice
from llavakit.data.keep import Keep
from llavakit.data.reader import READERS, Options, Reader, Rule, Talk, Talks


class Ingredient(Config):
    """One raw source. ``kind`` names its reader, where the ingredient's own name does not; ``path`` is where under the
    root its annotations lie. ``weight`` writes every record so many times (0.5: a half, chosen by the seed), after
    ``keep`` and ``cap``. ``records`` is the published count, shown beside the own one."""

    kind: str | None = None
    path: str = "."
    options: dict[str, Any] = Field(default_factory=dict)
    keep: Keep = Keep()
    cap: int | None = Field(None, gt=0)
    weight: float = Field(1.0, gt=0)
    records: int | None = None

    def rules(self, name: str) -> list[Rule]:
        """``keep``, ``cap`` and ``weight`` as rules, those that do something."""
        rules = []
        if self.keep != Keep():
            rules.append(_keep(self.keep, name))
        if self.cap is not None:
            rules.append(_cap(self.cap))
        if self.weight != 1.0:
            rules.append(_weight(self.weight))
        return rules


class Blend(Config):
    """A mixture of raw sources, all concatenated; training samples them alike."""

    name: str
    sources: dict[str, Ingredient] = Field(min_length=1)

    def reader(self, name: str) -> tuple[Reader[Any], Options]:
        """A source's reader and its validated options. Raises :class:`BadRequest` for an unknown kind or option."""
        ingredient = self.sources[name]
        reader: Reader[Any] = READERS[ingredient.kind or name]
        return reader, reader.options.parse(ingredient.options, f"{self.name}: options of {name}")


MIXES = Registry("llavakit.data.mixes", "MIX", "mixture")


def resolve(name: str) -> Blend:
    """A shipped mixture by name, or a YAML or JSON file of the same schema."""
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return Blend.parse(load_mapping(name), name)
    found: Blend = MIXES[name]
    return found


def _said(keep: Keep) -> str:
    changed = {key: value for key, value in keep.plain().items() if value != Keep().plain()[key]}
    return ", ".join(f"{key} {value}" for key, value in changed.items())


def _keep(keep: Keep, name: str) -> Rule:
    def act(talks: Talks, dice: Dice) -> Talks:
        return [talk for talk in talks if keep(talk.record(name))]

    return Rule("keep", f"only records with {_said(keep)}", act)


def _cap(cap: int) -> Rule:
    def act(talks: Talks, dice: Dice) -> Talks:
        numbered = dice.sample(list(enumerate(talks)), cap, lambda pair: pair[0])
        return [talk for _, talk in numbered]

    return Rule("cap", f"at most {cap:,} conversations, chosen by the seed", act)


def _weight(weight: float) -> Rule:
    def act(talks: Talks, dice: Dice) -> Talks:
        whole, rest = divmod(round(len(talks) * weight), max(1, len(talks)))
        more: Sequence[tuple[int, Talk]] = dice.sample(list(enumerate(talks)), rest, lambda pair: pair[0])
        return [*(talk for _ in range(whole) for talk in talks), *(talk for _, talk in more)]

    return Rule("weight", f"every conversation {weight:g} times, a share of one by the seed", act)
