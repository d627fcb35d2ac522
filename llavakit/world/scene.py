"""Scene: what a picture shows, known exactly. ``sample_scene`` draws one from (seed, split, index) and nothing else.

Positions ``x``, ``y`` are fractions of the picture's width and height; lengths are fractions of its short side.
No two items of a scene share a place, so reading order and "the thing at the top left" are never ambiguous.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, replace

import numpy as np

from llavakit.world import letters
from llavakit.world.shapes import span
from llavakit.world.words import COLOURS, HELD_OUT, PATTERNS, PLACES, SHAPES, SIZES, TEXTURES, TONES, WORDS

Box = tuple[float, float, float, float]

EXTENTS = {"small": (0.125, 0.15), "large": (0.22, 0.30)}
EDGE = 0.02  # of the short side: between an item and the picture's edge
GAP = 0.03  # of the short side: between two items
CLEAR = 0.03  # of the picture: between an item's centre and the border of a third

_ASPECTS = (1.0, 4 / 3, 3 / 4)
_HOW_MANY = (0.17, 0.21, 0.21, 0.17, 0.13, 0.11)


@dataclass(frozen=True)
class Item:
    """Something with a place. ``x``, ``y``: its centre; ``width``, ``height``: of its bounding box."""

    x: float
    y: float

    @property
    def width(self) -> float:
        raise NotImplementedError

    @property
    def height(self) -> float:
        raise NotImplementedError

    @property
    def row(self) -> int:
        return min(int(self.y * 3), 2)

    @property
    def column(self) -> int:
        return min(int(self.x * 3), 2)

    @property
    def place(self) -> str:
        return PLACES[3 * self.row + self.column]


@dataclass(frozen=True)
class Thing(Item):
    """A coloured shape. ``extent``: the larger side of its bounding box; ``tilt``: degrees."""

    colour: str
    shape: str
    size: str
    pattern: str
    extent: float
    tilt: int = 0
    shade: float = 1.0  # factor on the colour's brightness

    @property
    def width(self) -> float:
        return self.extent * span(self.shape, self.tilt)[0]

    @property
    def height(self) -> float:
        return self.extent * span(self.shape, self.tilt)[1]

    @property
    def novel(self) -> bool:
        """Whether its colour and shape together are held out of training."""
        return (self.colour, self.shape) in HELD_OUT


@dataclass(frozen=True)
class Inscription(Item):
    """A printed word or two-digit number. ``letter_height``: of its capitals."""

    text: str
    letter_height: float

    @property
    def kind(self) -> str:
        return "number" if self.text.isdigit() else "word"

    @property
    def width(self) -> float:
        return self.letter_height * letters.aspect(self.text)

    @property
    def height(self) -> float:
        return self.letter_height


@dataclass(frozen=True)
class Background:
    """``tint``: mean RGB of the surface; ``noise``: standard deviation of its pixels, in levels of 255."""

    tone: str
    texture: str
    tint: tuple[int, int, int]
    noise: float


@dataclass(frozen=True)
class Scene:
    """``aspect``: width over height. ``things`` and ``inscriptions`` stand in reading order.

    ``seed`` feeds what has no truth of its own: the noise of the pixels. Raises ValueError when :func:`faults` are.
    """

    seed: int
    aspect: float
    background: Background
    things: tuple[Thing, ...]
    inscriptions: tuple[Inscription, ...] = ()

    def __post_init__(self) -> None:
        if found := faults(self):
            raise ValueError(f"no such scene can be: {'; '.join(found)}")

    @property
    def items(self) -> tuple[Item, ...]:
        """Things and inscriptions in reading order."""
        return tuple(sorted((*self.things, *self.inscriptions), key=lambda item: (item.row, item.column)))

    @property
    def novel(self) -> bool:
        return any(thing.novel for thing in self.things)

    def inscription(self, kind: str) -> Inscription | None:
        """The printed ``word`` or ``number``, if there is one."""
        return next((item for item in self.inscriptions if item.kind == kind), None)

    def extents(self) -> tuple[float, float]:
        """Width and height of the picture in short sides."""
        return max(self.aspect, 1.0), max(1 / self.aspect, 1.0)

    def box(self, item: Item) -> Box:
        """x1, y1, x2, y2 of an item as fractions of the picture's width and height."""
        w, h = self.extents()
        dx, dy = item.width / 2 / w, item.height / 2 / h
        return item.x - dx, item.y - dy, item.x + dx, item.y + dy

    def square_box(self, item: Item) -> Box:
        """The box in the picture padded, evenly on both sides, to a square: what texts and answers state."""
        w, h = self.extents()
        side = max(w, h)
        left, top = (side - w) / 2 / side, (side - h) / 2 / side
        x1, y1, x2, y2 = self.box(item)
        return left + x1 * w / side, top + y1 * h / side, left + x2 * w / side, top + y2 * h / side


def faults(scene: Scene) -> list[str]:
    """What makes a scene ambiguous or impossible; empty when it is sound."""
    found = []
    w, h = scene.extents()
    items = scene.items
    if not 1 <= len(scene.things) <= 6:
        found.append(f"{len(scene.things)} things")
    if len({(t.colour, t.shape) for t in scene.things}) != len(scene.things):
        found.append("two things of one colour and shape")
    if len({item.place for item in items}) != len(items):
        found.append("two items in one place")
    if len({text.kind for text in scene.inscriptions}) != len(scene.inscriptions):
        found.append("two inscriptions of one kind")
    for group in (scene.things, scene.inscriptions):
        if list(group) != [item for item in items if item in group]:
            found.append("not in reading order")
    for i, item in enumerate(items):
        if not _inside(item, w, h):
            found.append(f"{item} reaches over the edge")
        if not _clear(item):
            found.append(f"{item} is between two places")
        if any(_close(item, other, w, h) for other in items[:i]):
            found.append(f"{item} is too close to another")
    return found


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
            if not any(_close(moved, other, w, h) for other in placed):
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


def _inside(item: Item, w: float, h: float) -> bool:
    dx, dy = (item.width / 2 + EDGE - 1e-3) / w, (item.height / 2 + EDGE - 1e-3) / h
    return dx <= item.x <= 1 - dx and dy <= item.y <= 1 - dy


def _clear(item: Item) -> bool:
    return all(abs(at - border) >= CLEAR - 1e-3 for at in (item.x, item.y) for border in (1 / 3, 2 / 3))


def _close(a: Item, b: Item, w: float, h: float) -> bool:
    across = abs(a.x - b.x) * w < (a.width + b.width) / 2 + GAP
    return across and abs(a.y - b.y) * h < (a.height + b.height) / 2 + GAP


def _one(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
