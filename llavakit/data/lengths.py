"""How long the samples of a source are: measured where its file is at hand, else as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from pydantic import Field

from llavakit.base.config import Config
from llavakit.base.errors import BadRecord
from llavakit.data.dice import Dice
from llavakit.data.measure import measure
from llavakit.data.source import Source
from llavakit.model.encode import Codec

SAMPLED = 400
SHORTEST = 4


class Lengths(Config):
    """What is published of a source: mean tokens of a sample's text (template and all), the spread of their logarithm,
    the share of them that is supervised, and the share of samples that have a picture."""

    text: float = Field(gt=0)
    spread: float = Field(0.5, ge=0)
    supervised: float = Field(gt=0, le=1)
    pictures: float = Field(1.0, ge=0, le=1)


@dataclass(frozen=True)
class Sizes:
    """Of some samples: tokens of each, how many are supervised, its pictures (or tiles)."""

    tokens: np.ndarray
    supervised: np.ndarray
    pictures: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Sizes]) -> Sizes:
        names = ("tokens", "supervised", "pictures")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, indices: np.ndarray) -> Sizes:
        return Sizes(self.tokens[indices], self.supervised[indices], self.pictures[indices])


def measured(source: Source, codec: Codec, tiles: int, count: int = SAMPLED) -> Sizes:
    """Of ``count`` records chosen by their number, through ``encode`` itself; bad ones are left out. A picture counts
    for ``tiles`` tiles."""
    rows = []
    for index in Dice(0, "lengths").sample(range(len(source)), count, str):
        try:
            conversation = source[index]
            found = measure(conversation, codec)
        except BadRecord:
            continue
        tokens = min(found.tokens, codec.max_length)
        rows.append((tokens, max(1, found.supervised - found.lost_supervised), tiles * len(conversation.images)))
    if not rows:
        return Sizes(*(np.zeros(0, dtype=np.int64) for _ in range(3)))
    return Sizes(*np.array(rows, dtype=np.int64).T)


def published(lengths: Lengths, image_tokens: int, tiles: int, max_length: int, count: int = SAMPLED) -> Sizes:
    """``count`` samples of what is published: log-normal texts, cut at ``max_length``. A picture takes
    ``image_tokens`` in ``tiles`` tiles."""
    rng, places = np.random.default_rng(0), (np.arange(count) + 0.5) / count
    # Quantiles and not chance: the mean of a few hundred draws from so long a tail would be another.
    normal = np.array([NormalDist().inv_cdf(place) for place in places])
    text = np.exp(np.log(lengths.text) - lengths.spread**2 / 2 + lengths.spread * rng.permutation(normal))
    pictures = places < lengths.pictures
    tokens = (text.clip(SHORTEST) + pictures * image_tokens).clip(max=max_length).astype(np.int64)
    supervised = ((tokens - pictures * image_tokens) * lengths.supervised).clip(1).astype(np.int64)
    return Sizes(tokens, supervised, pictures * tiles)
