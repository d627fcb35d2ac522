"""A whole scene in words: the short caption, the detailed description, the caption that reads the printed text."""

from __future__ import annotations

import numpy as np

from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs
from llavakit.world.ask.phrase import (
    FULL_PATTERN,
    PAIR_PATTERN,
    at,
    called,
    counted,
    full,
    listed,
    pair,
    pick,
    sentence,
)
from llavakit.world.scene import Inscription, Item, Scene
from llavakit.world.words import OCR_TOKENS, ONE_SENTENCE

BRIEF = (
    "Provide a brief description of the given image.",
    "Give a short description of the image.",
    "Describe the image briefly.",
)
DETAILED = (
    "Describe the image in detail.",
    "What do you see in the image?",
    "Give a detailed description of the image.",
)


def caption_text(scene: Scene) -> str:
    """One sentence that names everything with its place, in reading order."""
    return sentence(listed([f"{called(item, full)} {at(item.place)}" for item in scene.items]))


def detail_text(scene: Scene) -> str:
    """Background, number of things, then a sentence for every item in reading order."""
    background = scene.background
    verb = "is" if len(scene.things) == 1 else "are"
    parts = [f"The background is {background.tone} and {background.texture}."]
    parts.append(f"There {verb} {counted(len(scene.things), 'thing')}.")
    parts += [_there(item) for item in scene.items]
    return " ".join(parts)


def caption(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    return [[_whole(scene, pick(rng, BRIEF), caption_text(scene), "caption")]]


def detail(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    return [[_whole(scene, pick(rng, DETAILED), detail_text(scene), "detail")]]


def textcaps(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """None for a scene without printed text. The line of tokens is what a text detector would have read."""
    if not scene.inscriptions:
        return []
    tokens = OCR_TOKENS + ", ".join(item.text for item in scene.inscriptions)
    items = [called(item, pair) for item in scene.items]
    prompt = f"{ONE_SENTENCE}\n{tokens}"
    answers = tuple(pair(item) for item in scene.items)
    reply = sentence(listed(items))
    return [[Exchange(prompt, reply, "textcaps", "phrases", answers, pattern=PAIR_PATTERN, novel=scene.novel)]]


def _whole(scene: Scene, question: str, text: str, kind: str) -> Exchange:
    answers = tuple(full(item) for item in scene.items)
    return Exchange(question, text, kind, "phrases", answers, pattern=FULL_PATTERN, novel=scene.novel)


def _there(item: Item) -> str:
    if isinstance(item, Inscription):
        return sentence(f"{at(item.place)} the {full(item)} is printed")
    return sentence(f"{at(item.place)} there is {called(item, full)}")
