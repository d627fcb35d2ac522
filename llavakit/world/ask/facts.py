"""Single facts of a scene, asked and answered: the material of short answers, conversations and choices.

Every kind is a function of (scene, generator, combinations that may be asked about); all are in :data:`KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llavakit.world.ask.exchange import Exchange
from llavakit.world.ask.phrase import a, at, capital, counted, pick, plural, reference, sentence
from llavakit.world.scene import Scene, Thing
from llavakit.world.words import COLOURS, PATTERNS, PLACES, SHAPES, SIZES

Pairs = Sequence[tuple[str, str]]

APART = 0.12  # of the picture: how much further left or higher a thing lies for it to be asked about


@dataclass(frozen=True)
class Fact:
    """``answer`` is the short one, in lower case; ``full`` a sentence; ``options`` all answers of its sort."""

    kind: str
    question: str
    answer: str
    full: str
    options: tuple[str, ...]
    novel: bool = False

    def exchange(self) -> Exchange:
        """Asked for the short answer, without a prompt for it yet."""
        return Exchange(self.question, capital(self.answer), self.kind, novel=self.novel)

    def spoken(self) -> Exchange:
        """Asked for the sentence."""
        # "top" is within "top left": a wrong answer that is part of the right one cannot be counted against it.
        parts = self.answer.split()
        others = tuple(o for o in self.options if o != self.answer and not (o in parts and len(parts) > 1))
        return Exchange(self.question, self.full, self.kind, "contains", (self.answer,), others, novel=self.novel)


YES_NO = ("yes", "no")
NUMBERS = tuple(str(n) for n in range(7))


def presence(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    """Is there such a thing? Yes half the time; half of the no's share colour or shape with a thing that is there."""
    yes = bool(rng.random() < 0.5)
    if rng.random() < 0.3:
        values, noun = (SHAPES, "{}") if rng.random() < 0.5 else (COLOURS, "{} thing")
        there = {t.shape if values is SHAPES else t.colour for t in scene.things}
        yes = yes or len(there) == len(values)  # nothing is missing from a scene of all six shapes
        what = noun.format(pick(rng, [v for v in values if (v in there) == yes]))
        return _present(what, yes, "", rng, novel=False)
    if yes:
        thing = pick(rng, scene.things)
        return _present(f"{thing.colour} {thing.shape}", True, f" {at(thing.place)}", rng, thing.novel)
    colour, shape = pick(rng, absent(scene, rng, pairs, hard=bool(rng.random() < 0.5)))
    return _present(f"{colour} {shape}", False, "", rng, novel=False)


def absent(scene: Scene, rng: np.random.Generator, pairs: Pairs, hard: bool) -> Pairs:
    """The combinations of ``pairs`` that are not there; ``hard`` ones share colour or shape with one that is."""
    there = {(t.colour, t.shape) for t in scene.things}
    colours, shapes = {c for c, _ in there}, {s for _, s in there}
    missing = [p for p in pairs if p not in there]
    return [p for p in missing if p[0] in colours or p[1] in shapes] if hard else missing


def _present(what: str, yes: bool, where: str, rng: np.random.Generator, novel: bool) -> Fact:
    question = pick(rng, (f"Is there {a(what)} in the image?", f"Does the image show {a(what)}?"))
    answer = f"Yes, there is {a(what)}{where}." if yes else f"No, there is no {what}."
    return Fact("presence", question, "yes" if yes else "no", answer, YES_NO, novel)


def colour(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    thing = pick(rng, scene.things)
    which = reference(scene, thing, rng, hide="colour")
    question = pick(rng, (f"What color is {which}?", f"What is the color of {which}?"))
    return Fact("color", question, thing.colour, sentence(f"{which} is {thing.colour}"), COLOURS, thing.novel)


def shape(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    thing = pick(rng, scene.things)
    which = reference(scene, thing, rng, hide="shape")
    question = pick(rng, (f"What shape is {which}?", f"What is the shape of {which}?"))
    return Fact("shape", question, thing.shape, sentence(f"{which} is {a(thing.shape)}"), SHAPES, thing.novel)


def size(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    thing = pick(rng, scene.things)
    which = reference(scene, thing, rng, hide="size")
    question = pick(rng, (f"What size is {which}?", f"Is {which} small or large?"))
    return Fact("size", question, thing.size, sentence(f"{which} is {thing.size}"), SIZES, thing.novel)


def pattern(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    thing = pick(rng, scene.things)
    which = reference(scene, thing, rng, hide="pattern")
    question = pick(rng, (f"What pattern is {which}?", f"What is the pattern of {which}?"))
    return Fact("pattern", question, thing.pattern, sentence(f"{which} is {thing.pattern}"), PATTERNS, thing.novel)


def place(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    thing = pick(rng, scene.things)
    which = reference(scene, thing, rng, hide="place")
    question = pick(rng, (f"Where is {which}?", f"In which part of the image is {which}?"))
    return Fact("place", question, thing.place, sentence(f"{which} is {at(thing.place)}"), PLACES, thing.novel)


def count(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact:
    """Of all things, of a shape, of a colour, of a pattern; four times out of five of one that is there."""
    key = pick(rng, ("all", "shape", "colour", "pattern"))
    if key == "all":
        noun, number = "thing", len(scene.things)
    else:
        values = {"shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS}[key]
        seen = [getattr(thing, key) for thing in scene.things]
        value = pick(rng, seen if rng.random() < 0.8 else values)
        noun, number = (value if key == "shape" else f"{value} thing"), seen.count(value)
    question = pick(rng, (f"How many {plural(noun)} are there?", f"How many {plural(noun)} are in the image?"))
    verb = "is" if number == 1 else "are"
    return Fact("count", question, str(number), f"There {verb} {counted(number, noun)}.", NUMBERS)


def relation(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Fact | None:
    """Is one thing left of, right of, above or below another? None where no two are clearly apart."""
    across = bool(rng.random() < 0.5)
    key = "x" if across else "y"
    apart = [(t, u) for t in scene.things for u in scene.things if ordered(t, u, key)]
    if not apart:
        return None
    first, second = pick(rng, apart)
    words = ("to the left of", "to the right of") if across else ("above", "below")
    yes, swapped = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    one, two = (second, first) if swapped else (first, second)
    true, false = (words[1], words[0]) if swapped else words
    ways = reference(scene, one, rng, hide="place"), reference(scene, two, rng, hide="place")
    question = f"Is {ways[0]} {true if yes else false} {ways[1]}?"
    answer = f"{'Yes' if yes else 'No'}, {ways[0]} is {true} {ways[1]}."
    return Fact("relation", question, "yes" if yes else "no", answer, YES_NO, one.novel or two.novel)


def ordered(first: Thing, second: Thing, key: str) -> bool:
    """Whether ``first`` lies further left ("x") or higher ("y"), in place's name and by a clear distance."""
    third = {"x": "column", "y": "row"}[key]
    before = bool(getattr(first, third) < getattr(second, third))
    return before and getattr(second, key) - getattr(first, key) >= APART


KINDS: dict[str, Callable[[Scene, np.random.Generator, Pairs], Fact | None]] = {
    "presence": presence,
    "color": colour,
    "shape": shape,
    "size": size,
    "pattern": pattern,
    "count": count,
    "place": place,
    "relation": relation,
}


def draw_facts(
    scene: Scene, rng: np.random.Generator, pairs: Pairs, number: int, kinds: Sequence[str] = tuple(KINDS)
) -> list[Fact]:
    """Up to ``number`` facts, no question twice, kinds in random order and as evenly as may be."""
    found: dict[str, Fact] = {}
    order = [kinds[int(i)] for _ in range(-(-number // len(kinds))) for i in rng.permutation(len(kinds))]
    for kind in order:
        fact = KINDS[kind](scene, rng, pairs)
        if fact is not None and len(found) < number:
            found.setdefault(fact.question, fact)
    return list(found.values())
