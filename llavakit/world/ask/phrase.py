"""How things are called: "small striped red circle", "the red circle", "at the top left", "the word TAXI"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

import numpy as np

from llavakit.world.scene import Inscription, Item, Scene, Thing
from llavakit.world.words import COLOURS, PATTERNS, SHAPES, SIZES

# Matches every full thing phrase and every inscription phrase, in any case.
FULL_PATTERN = (
    rf"(?:{'|'.join(SIZES)}) (?:{'|'.join(PATTERNS)}) (?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
    r"|word [A-Z]+|number \d+"
)
# The same for captions that name things by colour and shape alone.
PAIR_PATTERN = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})|word [A-Z]+|number \d+"


T = TypeVar("T")


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of ``options``, all alike likely."""
    return options[int(rng.integers(len(options)))]


def full(item: Item) -> str:
    """All attributes of a thing, "small striped red circle"; of an inscription "word TAXI" or "number 42"."""
    if isinstance(item, Thing):
        return f"{item.size} {item.pattern} {item.colour} {item.shape}"
    assert isinstance(item, Inscription)
    return f"{item.kind} {item.text}"


def pair(item: Item) -> str:
    """Colour and shape of a thing; of an inscription what :func:`full` says."""
    return f"{item.colour} {item.shape}" if isinstance(item, Thing) else full(item)


def called(item: Item, name: Callable[[Item], str]) -> str:
    """``name`` with its article: a thing is "a red circle", an inscription "the word TAXI"."""
    return a(name(item)) if isinstance(item, Thing) else f"the {name(item)}"


def a(noun: str) -> str:
    """With the indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def at(place: str) -> str:
    """ "at the top left", "on the left", "in the center"."""
    preposition = {"left": "on", "right": "on", "center": "in"}.get(place, "at")
    return f"{preposition} the {place}"


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b, and c"."""
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"


def sentence(text: str) -> str:
    """With a capital at its head and a period at its end."""
    return f"{capital(text)}."


def capital(text: str) -> str:
    """With a capital at its head; unlike str.capitalize it leaves TAXI alone."""
    return text[0].upper() + text[1:]


def counted(number: int, noun: str) -> str:
    """ "1 circle", "2 circles", "0 crosses"."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Of a shape, "thing", or "word"."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def reference(scene: Scene, thing: Thing, rng: np.random.Generator, hide: str = "") -> str:
    """A way to say which thing is meant: true of it alone, and silent about the attribute ``hide``.

    Colour and shape are the commonest; places, sizes and patterns are for variety.
    """
    options = [words for words, keys in _ways(thing) if hide not in keys and _unique(scene, thing, keys)]
    # A place names one item at most, so a question about anything but the place can always be asked.
    return f"the {pick(rng, options)}"


def _ways(thing: Thing) -> list[tuple[str, tuple[str, ...]]]:
    colour_shape = f"{thing.colour} {thing.shape}", ("colour", "shape")
    return [
        colour_shape,
        colour_shape,
        (thing.shape, ("shape",)),
        (f"{thing.colour} thing", ("colour",)),
        (f"{thing.pattern} {thing.shape}", ("pattern", "shape")),
        (f"{thing.size} {thing.shape}", ("size", "shape")),
        (f"{thing.size} {thing.colour} thing", ("size", "colour")),
        (f"thing {at(thing.place)}", ("place",)),
    ]


def _unique(scene: Scene, thing: Thing, keys: tuple[str, ...]) -> bool:
    look = attrgetter(*keys)
    meant = look(thing)
    return [look(other) for other in scene.things].count(meant) == 1
