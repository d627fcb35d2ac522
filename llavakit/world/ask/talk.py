"""Conversation without an image: facts of the world in general, and questions about a scene told in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llavakit.world.ask.choice import choices
from llavakit.world.ask.describe import caption_text
from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs, draw_facts
from llavakit.world.ask.phrase import capital, listed, pick, sentence
from llavakit.world.ask.reason import reasoning
from llavakit.world.scene import Scene
from llavakit.world.words import COLOURS, SHAPES, WORDS

CORNERS = {"triangle": 3, "square": 4}
OPPOSITES = {
    "small": "large",
    "large": "small",
    "light": "dark",
    "dark": "light",
    "left": "right",
    "right": "left",
    "top": "bottom",
    "bottom": "top",
    "yes": "no",
    "no": "yes",
    "above": "below",
    "below": "above",
}
MIXTURES = {("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple"}


def talk(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """One conversation: half the time about ``scene``, told in words; else small talk."""
    if rng.random() < 0.5:
        return [told(scene, rng, pairs)]
    order = rng.permutation(len(_SMALL))[: int(rng.integers(2, 5))]
    return [[_SMALL[int(i)](rng) for i in order]]


def told(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> Dialogue:
    """Questions about a scene that the first one tells: short, spoken, with choices, or to be reasoned about."""
    way = pick(rng, ("short", "short", "spoken", "choice", "reasoning"))
    if way == "choice":
        exchanges = [one.exchange() for one in choices(scene, rng, pairs, 2)]
    elif way == "reasoning":
        exchanges = reasoning(scene, rng, pairs)[0]
    else:
        facts = draw_facts(scene, rng, pairs, 3)
        exchanges = [fact.exchange().short() if way == "short" else fact.spoken() for fact in facts]
    text = caption_text(scene)
    return [exchanges[0].after(f"An image shows {text[0].lower()}{text[1:]} "), *exchanges[1:]]


def _add(rng: np.random.Generator) -> Exchange:
    a, b = (int(n) for n in rng.integers(0, 6, 2))
    return Exchange(f"What is {a} + {b}?", str(a + b), "add")


def _subtract(rng: np.random.Generator) -> Exchange:
    b, a = sorted(int(n) for n in rng.integers(0, 7, 2))
    return Exchange(f"What is {a} - {b}?", str(a - b), "subtract")


def _spell(rng: np.random.Generator) -> Exchange:
    word = pick(rng, WORDS)
    return Exchange(f"Spell the word {word}.", " ".join(word), "spell")


def _join(rng: np.random.Generator) -> Exchange:
    word = pick(rng, WORDS)
    return Exchange(f"Which word is spelled {' '.join(word)}?", word, "join")


def _opposite(rng: np.random.Generator) -> Exchange:
    word = pick(rng, tuple(OPPOSITES))
    return Exchange(f"What is the opposite of {word}?", capital(OPPOSITES[word]), "opposite")


def _mix(rng: np.random.Generator) -> Exchange:
    pair = pick(rng, tuple(MIXTURES))
    first, second = pair if rng.random() < 0.5 else pair[::-1]
    return Exchange(f"What color do you get if you mix {first} and {second}?", capital(MIXTURES[pair]), "mix")


def _corners(rng: np.random.Generator) -> Exchange:
    shape = pick(rng, tuple(CORNERS))
    return Exchange(f"How many corners does a {shape} have?", str(CORNERS[shape]), "corners")


def _repeat(rng: np.random.Generator) -> Exchange:
    words = _some(rng)
    return Exchange(f"Repeat the list: {', '.join(words)}.", capital(", ".join(words)), "repeat")


def _reverse(rng: np.random.Generator) -> Exchange:
    words = _some(rng)
    return Exchange(f"Reverse the list: {', '.join(words)}.", capital(", ".join(reversed(words))), "reverse")


def _sort_of(rng: np.random.Generator) -> Exchange:
    word = pick(rng, (*COLOURS, *SHAPES))
    return Exchange(f"Is {word} a color or a shape?", "Color" if word in COLOURS else "Shape", "sort")


def _greeting(rng: np.random.Generator) -> Exchange:
    question = pick(rng, ("Hello!", "Who are you?", "What can you do?"))
    reply = sentence(f"I am an assistant and can tell you about {listed(['colors', 'shapes', 'places', 'words'])}")
    return Exchange(question, reply, "greeting", "contains", ("assistant",))


_SMALL: tuple[Callable[[np.random.Generator], Exchange], ...] = (
    _add,
    _subtract,
    _spell,
    _join,
    _opposite,
    _mix,
    _corners,
    _repeat,
    _reverse,
    _sort_of,
    _greeting,
)


def _some(rng: np.random.Generator) -> list[str]:
    options = COLOURS if rng.random() < 0.5 else SHAPES
    return [options[int(i)] for i in rng.permutation(len(options))[: int(rng.integers(2, 5))]]
