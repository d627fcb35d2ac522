"""How far chance goes: intervals and tests that draw pictures, not questions.

Questions about one picture are right or wrong together, so questions are no independent draws, pictures are. All here
is made of tallies summed by picture (:meth:`~llavakit.eval.benchmark.Benchmark.tally`); nothing is judged twice. The
seed is fixed: the same answers give the same figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from llavakit.eval.benchmark import Tally

Headline = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Sums by name, ``float64[...]`` each, to scores."""

SEED = 0
DRAWS = 2_000  # of a bootstrap: the ends of an interval are good to about a twentieth of its width
SWAPS = 10_000  # of a permutation test: no p-value below 1e-4 can be seen
_CELLS = 1 << 22  # of a block of draws, as memory allows


def interval(tallies: Sequence[Tally], pictures: Sequence[str], headline: Headline) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of a headline; None where there are not two pictures to draw from.

    ``pictures``: what each question shows; a question that shows nothing is drawn for itself.
    """
    names = _names(tallies)
    sums = _by_picture(tallies, _numbers(pictures), names)
    if len(sums) < 2:
        return None
    return _middle([headline(_named(drawn @ sums, names)) for drawn in _drawn(len(sums))])


def paired(
    one: Sequence[Tally], other: Sequence[Tally], pictures: Sequence[str], headline: Headline
) -> tuple[tuple[float, float] | None, float]:
    """The 95 % bootstrap interval of ``other`` less ``one``, and the two-sided p-value of a permutation test.

    Both answered the same questions. The test asks how often a difference at least so large would come about if for
    every picture a coin had decided which model gave which answers.
    """
    names, numbers = _names([*one, *other]), _numbers(pictures)
    a, b = _by_picture(one, numbers, names), _by_picture(other, numbers, names)
    if len(a) < 2:
        return None, 1.0
    both = np.concatenate([a, b], axis=1)
    differences = []
    for drawn in _drawn(len(a)):
        sums = drawn @ both
        differences.append(_difference(sums[:, : len(names)], sums[:, len(names) :], names, headline))
    return _middle(differences), _permuted(a, b, names, headline)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): among twelve tests one in two finds something below 0.05."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, least = [0.0] * len(values), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, values[i] * (len(values) - place)))
        corrected[i] = least
    return corrected


def _permuted(a: np.ndarray, b: np.ndarray, names: list[str], headline: Headline) -> float:
    whole_a, whole_b = a.sum(0), b.sum(0)
    seen = abs(float(_difference(whole_a, whole_b, names, headline)))
    moved = (b - a)[(a != b).any(1)]  # swapping equal answers changes nothing
    rng = np.random.default_rng(SEED)
    extreme = 0
    for size in _blocks(SWAPS, len(moved)):
        swapped = rng.integers(0, 2, (size, len(moved)), dtype=np.int8).astype(np.float64) @ moved
        found = np.abs(_difference(whole_a + swapped, whole_b - swapped, names, headline))
        extreme += int((found >= seen - 1e-9 * max(1.0, seen)).sum())
    return (extreme + 1) / (SWAPS + 1)


def _drawn(count: int) -> Iterator[np.ndarray]:
    """Blocks of ``float64[draws, count]``: how often each picture was drawn."""
    rng = np.random.default_rng(SEED)
    for size in _blocks(DRAWS, count):
        places = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def _blocks(draws: int, count: int) -> Iterator[int]:
    size = max(1, _CELLS // max(1, count))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _difference(a: np.ndarray, b: np.ndarray, names: list[str], headline: Headline) -> np.ndarray:
    return headline(_named(b, names)) - headline(_named(a, names))


def _middle(scores: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = np.quantile(np.concatenate(scores), [0.025, 0.975])
    return float(low), float(high)


def _names(tallies: Sequence[Tally]) -> list[str]:
    return sorted({name for tally in tallies for name in tally})


def _numbers(pictures: Sequence[str]) -> list[int]:
    """Each question's place among the pictures, in the order of their first questions."""
    known: dict[object, int] = {}
    return [known.setdefault(picture or place, len(known)) for place, picture in enumerate(pictures)]


def _by_picture(tallies: Sequence[Tally], numbers: Sequence[int], names: list[str]) -> np.ndarray:
    """``float64[pictures, names]``."""
    columns = {name: column for column, name in enumerate(names)}
    sums = np.zeros((max(numbers, default=-1) + 1, len(names)))
    for tally, number in zip(tallies, numbers, strict=True):
        for name, value in tally.items():
            sums[number, columns[name]] += value
    return sums


def _named(sums: np.ndarray, names: list[str]) -> Mapping[str, np.ndarray]:
    """The last axis by name; what no question has added to is zero."""
    nothing = np.zeros(sums.shape[:-1])
    return defaultdict(lambda: nothing, {name: sums[..., i] for i, name in enumerate(names)})
