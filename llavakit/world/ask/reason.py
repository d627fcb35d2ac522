"""Questions that need steps. The reply states the facts, takes the step, and ends with "The answer is X."."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs, ordered
from llavakit.world.ask.phrase import at, capital, counted, pick, plural, reference
from llavakit.world.scene import Scene, Thing
from llavakit.world.words import COLOURS, PATTERNS, SHAPES, SIZES


def reasoning(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """One dialogue with one question of a kind drawn by chance, among those that the scene can answer."""
    for i in rng.permutation(len(_KINDS)):
        exchange = _KINDS[int(i)](scene, rng)
        if exchange is not None:
            return [[exchange]]
    return []


def _remaining(scene: Scene, rng: np.random.Generator) -> Exchange:
    key = pick(rng, ("colour", "shape", "pattern", "size"))
    value = pick(rng, [getattr(thing, key) for thing in scene.things])
    noun = value if key == "shape" else f"{value} thing"
    total, gone = len(scene.things), sum(getattr(thing, key) == value for thing in scene.things)
    question = f"How many things remain if all {plural(noun)} are removed?"
    steps = f"{_there(total, 'thing')} and {counted(gone, noun)}. {total} - {gone} = {total - gone}."
    return _answered(question, steps, str(total - gone), "remaining")


def _sum(scene: Scene, rng: np.random.Generator) -> Exchange:
    key, values = pick(rng, (("shape", SHAPES), ("colour", COLOURS)))
    there = pick(rng, [getattr(thing, key) for thing in scene.things])
    two = [there, pick(rng, [value for value in values if value != there])]
    if rng.random() < 0.5:
        two.reverse()
    nouns = [value if key == "shape" else f"{value} thing" for value in two]
    numbers = [sum(getattr(thing, key) == value for thing in scene.things) for value in two]
    question = f"How many {plural(nouns[0])} and {plural(nouns[1])} are there in total?"
    total = sum(numbers)
    steps = f"{_there(numbers[0], nouns[0])} and {counted(numbers[1], nouns[1])}."
    return _answered(question, f"{steps} {numbers[0]} + {numbers[1]} = {total}.", str(total), "sum")


def _more(scene: Scene, rng: np.random.Generator) -> Exchange:
    key, values = pick(rng, (("pattern", PATTERNS), ("size", SIZES)))
    first = pick(rng, values)
    second = pick(rng, [value for value in values if value != first])
    one, two = (sum(getattr(thing, key) == value for thing in scene.things) for value in (first, second))
    question = f"Are there more {first} things than {second} things?"
    steps = f"{_there(one, f'{first} thing')} and {counted(two, f'{second} thing')}."
    return _answered(question, steps, "yes" if one > two else "no", "more")


def _extreme(scene: Scene, rng: np.random.Generator) -> Exchange | None:
    key, more, less = pick(rng, (("y", "higher", "lower"), ("x", "further left", "further right")))
    apart = [(t, u) for t in scene.things for u in scene.things if ordered(t, u, key)]
    if not apart:
        return None
    first, second = pick(rng, apart)
    asked, answer = (more, first) if rng.random() < 0.5 else (less, second)
    shown = [first, second] if rng.random() < 0.5 else [second, first]
    names = {id(thing): reference(scene, thing, rng, hide="place") for thing in shown}
    one, two = (names[id(thing)] for thing in shown)
    question = f"Which is {asked}, {one} or {two}?"
    steps = f"{capital(one)} is {at(shown[0].place)} and {two} is {at(shown[1].place)}."
    return _answered(question, steps, names[id(answer)], "extreme", _novel(shown))


def _same(scene: Scene, rng: np.random.Generator) -> Exchange | None:
    if len(scene.things) < 2:
        return None
    i, j = (int(k) for k in rng.permutation(len(scene.things))[:2])
    two = [scene.things[i], scene.things[j]]
    key, word = pick(rng, (("colour", "color"), ("pattern", "pattern"), ("size", "size")))
    one, other = (reference(scene, thing, rng, hide=key) for thing in two)
    values = [getattr(thing, key) for thing in two]
    question = f"Do {one} and {other} have the same {word}?"
    steps = f"{capital(one)} is {values[0]} and {other} is {values[1]}."
    return _answered(question, steps, "yes" if values[0] == values[1] else "no", "same", _novel(two))


_KINDS: tuple[Callable[[Scene, np.random.Generator], Exchange | None], ...] = (_remaining, _sum, _more, _extreme, _same)


def _answered(question: str, steps: str, answer: str, kind: str, novel: bool = False) -> Exchange:
    end = f"answer is {answer}"
    return Exchange(question, f"{steps} The {end}.", kind, "contains", (end,), novel=novel)


def _there(number: int, noun: str) -> str:
    return f"There {'is' if number == 1 else 'are'} {counted(number, noun)}"


def _novel(things: list[Thing]) -> bool:
    return any(thing.novel for thing in things)
