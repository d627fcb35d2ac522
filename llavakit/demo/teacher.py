"""A teacher without a model: reads a context of the miniature world and answers by rule, behind the real protocol.

With it `llavakit teach` can be tried, and tested, without a key: the questions, the wire, the checks are the real
ones. It tells the kinds apart by the system message, as a language model would.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from llavakit.base.errors import BadRequest
from llavakit.endpoint.local import LocalEndpoint
from llavakit.teacher.kind import KINDS, of_name
from llavakit.world.ask.describe import detail_text
from llavakit.world.ask.exchange import Dialogue
from llavakit.world.ask.facts import draw_facts
from llavakit.world.ask.phrase import called, counted, full, listed, pair
from llavakit.world.ask.reason import reasoning
from llavakit.world.ask.table import KNOWN_PAIRS
from llavakit.world.scene import Scene
from llavakit.world.told import understood


def rules(port: int = 0) -> LocalEndpoint:
    """The teacher as an endpoint on loopback; it serves while its ``with`` block lasts."""
    return LocalEndpoint(answer, port)


def answer(body: Mapping[str, Any]) -> str:
    """The answer to a chat completion request that ``llavakit teach`` has made from the world's captions.

    Raises :class:`BadRequest` for a request of another sort.
    """
    messages = body["messages"]
    kind = next((name for name in _ANSWERS if of_name(name).system == messages[0]["content"]), None)
    if kind is None:
        raise BadRequest(f"this teacher answers the prompts of {', '.join(_ANSWERS)} alone")
    told = [message["content"] for message in messages if message["role"] == "user"]
    text = str(told[len(of_name(kind).examples)])
    return _ANSWERS[kind](understood(text), np.random.default_rng(zlib.crc32(text.encode())))


def _conversation(scene: Scene, rng: np.random.Generator) -> str:
    return _written([fact.spoken() for fact in draw_facts(scene, rng, KNOWN_PAIRS, 5)])


def _detail(scene: Scene, rng: np.random.Generator) -> str:
    shown = listed([called(item, full) for item in scene.items])
    colours = list(dict.fromkeys(thing.colour for thing in scene.things))
    last = f"Altogether one sees {shown}, and the {'color' if len(colours) == 1 else 'colors'} {listed(colours)}."
    return f"{detail_text(scene)} {last}"


def _reasoning(scene: Scene, rng: np.random.Generator) -> str:
    ((exchange,),) = reasoning(scene, rng, KNOWN_PAIRS)
    shown = listed([called(thing, pair) for thing in scene.things])
    there = f"The image shows {counted(len(scene.things), 'thing')}: {shown}."
    return f"Question: {exchange.text}\nAnswer: {there} {exchange.reply}"


def _written(dialogue: Dialogue) -> str:
    return "\n".join(f"Question: {exchange.text}\nAnswer: {exchange.reply}" for exchange in dialogue)


_ANSWERS: dict[str, Callable[[Scene, np.random.Generator], str]] = {
    "conversation": _conversation,
    "detail": _detail,
    "reasoning": _reasoning,
}
assert set(_ANSWERS) <= set(KINDS.names())
