"""Scene: what a picture shows, known exactly, and what makes one sound.

Positions ``x``, ``y`` are fractions of the picture's width and height; lengths are fractions of its short side.
No two items of a scene share a place, so reading order and "the thing at the top left" are never ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.world import letters
from llavakit.world.shapes import span
from llavakit.world.words import HELD_OUT, PLACES

Box = tuple[float, float, float, float]

EDGE = 0.02  # of the short side: between an item and the picture's edge
GAP = 0.03  # of the short side: between two items
CLEAR = 0.03  # of the picture: between an item's centre and the border of a third


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
        if any(close(item, other, w, h) for other in items[:i]):
            found.append(f"{item} is too close to another")
    return found


def _inside(item: Item, w: float, h: float) -> bool:
    dx, dy = (item.width / 2 + EDGE - 1e-3) / w, (item.height / 2 + EDGE - 1e-3) / h
    return dx <= item.x <= 1 - dx and dy <= item.y <= 1 - dy


def _clear(item: Item) -> bool:
    return all(abs(at - border) >= CLEAR - 1e-3 for at in (item.x, item.y) for border in (1 / 3, 2 / 3))


def close(a: Item, b: Item, w: float, h: float) -> bool:
    """Whether two items of a picture ``w`` x ``h`` short sides lie nearer than :data:`GAP`."""
    across = abs(a.x - b.x) * w < (a.width + b.width) / 2 + GAP
    return across and abs(a.y - b.y) * h < (a.height + b.height) / 2 + GAP
