"""Mixture: sources, how much of each, and an order that is a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest
from llavakit.base.log import progress
from llavakit.chat.conversation import Conversation
from llavakit.data.dice import Dice
from llavakit.data.keep import Keep
from llavakit.data.lengths import Lengths
from llavakit.data.shards import ShardSource, is_shards
from llavakit.data.source import Source
from llavakit.data.sources.llava import ImageFirst, LlavaSource


class SourceSpec(Config):
    """A file in LLaVA's format, or a folder or URL of shards (``llavakit data shard``).

    ``weight`` is how many times each record appears in an epoch: 0.5 takes a random half (another in each epoch), 2
    takes every record twice. ``keep`` says which records take part, ``cap`` how many of those at most (chosen by the
    seed, the same in every epoch). ``holdout`` is how many records do not train and validate instead: whole pictures
    are held out, so it is a few more, and they are the same for every seed. ``records`` and ``lengths`` are the
    published size, for a plan made before the file is at hand; a file of another size is used as it is."""

    path: str
    images: str | None = None
    weight: float = Field(1.0, gt=0)
    keep: Keep = Keep()
    cap: int | None = Field(None, gt=0)
    holdout: int = Field(0, ge=0)
    records: int | None = None
    lengths: Lengths | None = None


class Chosen:
    """Some records of a source, in its order; a Source itself."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.name = source.name
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Conversation:
        return self.source[int(self.indices[index])]


def open_source(name: str, spec: SourceSpec, image_first: ImageFirst, seed: int = 0, held_out: bool = False) -> Source:
    """The file or shards of ``spec``, with what it keeps for training, or what it holds out. Raises
    :class:`BadRequest` for what is missing or broken."""
    source: LlavaSource | ShardSource
    if is_shards(spec.path):
        if spec.images is not None:
            raise BadRequest(f"{name}: the shards of {spec.path} hold their images; leave `images` out")
        source = ShardSource(spec.path, image_first)
    else:
        source = LlavaSource(Path(spec.path), spec.images, image_first)
    indices: Sequence[int] = range(len(source))
    if spec.keep != Keep():
        indices = [i for i in progress(indices, desc=f"keep of {name}") if spec.keep(source.records[i])]
    if spec.holdout or held_out:
        apart = _held_out(source.records, progress(indices, desc=f"pictures of {name}"), spec.holdout)
        indices = [i for i in indices if (i in apart) == held_out]
    if spec.cap is not None and not held_out:
        indices = Dice(seed, name, "cap").sample(indices, spec.cap, str)
    return source if len(indices) == len(source) else Chosen(source, indices)


def _held_out(records: Sequence[Any], indices: Iterable[int], count: int) -> set[int]:
    """Those of ``indices`` that belong to the first pictures of a fixed shuffle, until there are ``count``."""
    by_picture: dict[str, list[int]] = {}
    for index in indices:
        record = records[index]
        picture = record.get("image") if isinstance(record, dict) else None
        by_picture.setdefault(str(picture) if picture else f"record {index}", []).append(index)
    # No seed: runs that differ by it are measured on the same records.
    dice, found = Dice(0, "holdout"), set[int]()
    for picture in sorted(by_picture, key=dice.roll):
        if len(found) >= count:
            break
        found.update(by_picture[picture])
    return found


class Mixture:
    """Sources concatenated; item i of an epoch is a function of (seed, epoch, i), not of history or workers."""

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float], seed: int = 0) -> None:
        self.sources = dict(sources)
        self.names = list(sources)
        self.weights = dict(weights)
        self.seed = seed
        empty = [f"{n} ({len(sources[n])} at weight {weights[n]:g})" for n, c in self.counts().items() if not c]
        if empty or not sources:
            raise BadRequest(f"no records in {', '.join(empty) or 'the mixture'}")

    @classmethod
    def of(cls, specs: Mapping[str, SourceSpec], image_first: ImageFirst, seed: int = 0) -> Mixture:
        """Opens the files. Raises :class:`BadRequest` for one that is missing, broken or empty."""
        opened: dict[str, Source] = {name: open_source(name, spec, image_first, seed) for name, spec in specs.items()}
        return cls(opened, {name: spec.weight for name, spec in specs.items()}, seed)

    def __len__(self) -> int:
        """Items in an epoch."""
        return sum(round(len(source) * self.weights[name]) for name, source in self.sources.items())

    def counts(self) -> dict[str, int]:
        return {name: round(len(source) * self.weights[name]) for name, source in self.sources.items()}

    def order(self, epoch: int) -> np.ndarray:
        """``int64[len(self), 2]``: (source number, record number) of each item of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        parts = []
        for number, (name, count) in enumerate(self.counts().items()):
            size = len(self.sources[name])
            whole, rest = divmod(count, size)
            chosen = np.concatenate([np.tile(np.arange(size), whole), rng.permutation(size)[:rest]])
            parts.append(np.stack([np.full(count, number), chosen], axis=1))
        return rng.permutation(np.concatenate(parts), axis=0)

    def at(self, source: int, record: int) -> Conversation:
        return self.sources[self.names[source]][record]
