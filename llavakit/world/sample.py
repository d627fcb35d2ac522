"""``sample_scene``: a scene drawn from (seed, index, split) and nothing else."""

from __future__ import annotations

import functools
import zlib
from dataclasses import replace

import numpy as np

from llavakit.world.scene import CLEAR, EDGE, Background, Inscription, Item, Scene, Thing, close
from llavakit.world.words import COLOURS, HELD_OUT, PATTERNS, SHAPES, SIZES, TEXTURES, TONES, WORDS

EXTENTS = {"small": (0.125, 0.15), "large": (0.22, 0.30)}
_ASPECTS = (1.0, 4 / 3, 3 / 4)
_HOW_MANY = (0.17, 0.21, 0.21, 0.17, 0.13, 0.11)


def sample_scene(seed: int, index: int, split: str) -> Scene:
    """The scene ``index`` of a split; the same for the same arguments, on every machine.

    Only split "test" shows :data:`HELD_OUT` combinations, in about half of its scenes; split "words", which is for
    text without pictures, is free to name them.
    """
    rng = rng_of(seed, index, split)
    while True:
        scene = _attempt(rng, split)
        if scene is not None:
            return scene


def rng_of(seed: int, index: int, name: str) -> np.random.Generator:
    """The generator of item ``index`` of stream ``name``. Not Python's hash(): that changes from run to run."""
    return np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(name.encode()), index)))


def _attempt(rng: np.random.Generator, split: str) -> Scene | None:
    aspect = _ASPECTS[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
    w, h = max(aspect, 1.0), max(1 / aspect, 1.0)
    tone, texture = _one(rng, TONES), _one(rng, TEXTURES)
    items: list[Item] = []
    for colour, shape in _pairs(rng, int(rng.choice(6, p=_HOW_MANY)) + 1, split):
        size = _one(rng, SIZES)
        extent = float(rng.uniform(*EXTENTS[size]))
        tilt, shade = int(rng.integers(-10, 11)), float(rng.uniform(0.93, 1.05))
        items.append(Thing(0.5, 0.5, colour, shape, size, _one(rng, PATTERNS), extent, tilt, shade))
    for kind, chance in (("word", 0.55), ("number", 0.4)):
        if rng.random() < chance:
            text = _one(rng, WORDS) if kind == "word" else str(rng.integers(10, 100))
            items.append(Inscription(0.5, 0.5, text, float(rng.uniform(0.092, 0.102))))
    placed = _place(rng, items, w, h)
    if placed is None:
        return None
    placed.sort(key=lambda item: (item.row, item.column))
    return Scene(
        seed=int(rng.integers(2**31)),
        aspect=aspect,
        background=Background(tone, texture, _tint(rng, tone), float(rng.choice((0.0, 2.0, 4.0, 7.0)))),
        things=tuple(item for item in placed if isinstance(item, Thing)),
        inscriptions=tuple(item for item in placed if isinstance(item, Inscription)),
    )


@functools.cache
def _combinations(split: str) -> tuple[tuple[str, str], ...]:
    pairs = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
    return pairs if split == "words" else tuple(pair for pair in pairs if pair not in HELD_OUT)


def _pairs(rng: np.random.Generator, count: int, split: str) -> list[tuple[str, str]]:
    """``count`` different (colour, shape); a third are drawn to share colour or shape, so that scenes ask for care."""
    known = _combinations(split)
    chosen: list[tuple[str, str]] = []
    if split == "test" and rng.random() < 0.5:
        chosen.append(HELD_OUT[int(rng.integers(len(HELD_OUT)))])
    while len(chosen) < count:
        pair = known[int(rng.integers(len(known)))]
        if chosen and rng.random() < 0.35:
            like = chosen[int(rng.integers(len(chosen)))]
            pair = (like[0], pair[1]) if rng.random() < 0.5 else (pair[0], like[1])
        if pair not in chosen and pair in known:
            chosen.append(pair)
    return chosen


def _place(rng: np.random.Generator, items: list[Item], w: float, h: float) -> list[Item] | None:
    """The items, each in a place of its own, apart from each other; None when chance did not find room."""
    cells = rng.permutation(9)[: len(items)]
    placed: list[Item] = []
    # Wide ones first: they find room least easily.
    for cell, item in sorted(zip(cells, items, strict=True), key=lambda pair: -pair[1].width):
        row, column = divmod(int(cell), 3)
        for _ in range(12):
            x = _within(rng, column, (EDGE + item.width / 2) / w)
            y = _within(rng, row, (EDGE + item.height / 2) / h)
            if x is None or y is None:
                return None
            moved = replace(item, x=x, y=y)
            if not any(close(moved, other, w, h) for other in placed):
                placed.append(moved)
                break
        else:
            return None
    return placed


def _within(rng: np.random.Generator, third: int, margin: float) -> float | None:
    low, high = max(third / 3 + CLEAR, margin), min((third + 1) / 3 - CLEAR, 1 - margin)
    # Four decimals: a scene reads well, and lies the same after a round trip through text.
    return round(float(rng.uniform(low, high)), 4) if low < high else None


def _tint(rng: np.random.Generator, tone: str) -> tuple[int, int, int]:
    # Light stays well below white and dark well above black, so that white things and both inks stand out.
    level = rng.uniform(158, 186) if tone == "light" else rng.uniform(48, 80)
    r, g, b = (level * rng.uniform(0.93, 1.05, 3)).round().astype(int).tolist()
    return r, g, b


def _one(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
