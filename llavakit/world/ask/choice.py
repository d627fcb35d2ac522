"""Multiple choice with lettered options, as A-OKVQA and ScienceQA ask it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs, draw_facts
from llavakit.world.ask.phrase import capital
from llavakit.world.scene import Scene
from llavakit.world.words import LETTER, WORDS

LETTERS = "ABCD"
_KINDS = ("color", "shape", "count", "place")
_QUESTIONS = 4


@dataclass(frozen=True)
class Choice:
    """``options`` as shown; ``right``: the index of the true one."""

    question: str
    options: tuple[str, ...]
    right: int
    kind: str
    novel: bool = False

    def turned(self, by: int) -> Choice:
        """With its options moved round by ``by`` places."""
        n = len(self.options)
        options = tuple(self.options[(i - by) % n] for i in range(n))
        return Choice(self.question, options, (self.right + by) % n, self.kind, self.novel)

    def exchange(self) -> Exchange:
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)]
        text = "\n".join([self.question, *lines, LETTER])
        return Exchange(text, LETTERS[self.right], self.kind, "choice", novel=self.novel)


def choices(scene: Scene, rng: np.random.Generator, pairs: Pairs, number: int) -> list[Choice]:
    """Up to ``number`` questions with four options each, one of them true."""
    made = []
    for fact in draw_facts(scene, rng, pairs, number, _KINDS):
        made.append(_with_options(rng, fact.question, fact.answer, fact.options, fact.kind, fact.novel))
    word = scene.inscription("word")
    if word is not None and rng.random() < 0.5:
        made[-1] = _with_options(rng, "What word is printed in the image?", word.text, WORDS, "word", False)
    return made


def choice(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """Four conversations that ask the same questions; each question meets every rotation of its options once."""
    made = choices(scene, rng, pairs, _QUESTIONS)
    return [[one.turned(turn).exchange() for one in made] for turn in range(len(LETTERS))]


def _with_options(
    rng: np.random.Generator, question: str, answer: str, options: tuple[str, ...], kind: str, novel: bool
) -> Choice:
    wrong = [option for option in options if option != answer]
    shown = [answer, *(wrong[int(i)] for i in rng.permutation(len(wrong))[: len(LETTERS) - 1])]
    order = [int(i) for i in rng.permutation(len(LETTERS))]
    return Choice(question, tuple(capital(shown[i]) for i in order), order.index(0), kind, novel)
