"""Words for the language model: conversations about scenes that are told.

It learns the world's language from them, and to look things up in what stands before: first from :func:`lookup`, many
short questions about one telling, until it can; then from :func:`chat`, all else that is asked. (The other way round
long answers drown the short ones, and look-up does not form.) No pictures: these scenes (split "words") are free to
name held-out combinations, which nothing about a picture in training does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llavakit.world.ask.describe import caption_text, detail_text
from llavakit.world.ask.exchange import Dialogue
from llavakit.world.ask.facts import draw_facts
from llavakit.world.ask.phrase import capital, full, pick
from llavakit.world.ask.region import box_text, region
from llavakit.world.ask.table import ALL_PAIRS, CAPTION, INGREDIENTS
from llavakit.world.sample import rng_of, sample_scene
from llavakit.world.scene import Scene

_LOOKUPS = 16


def lookup(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` of short questions, a record of LLaVA's JSON format."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "lookup")
    first, *others = [fact.exchange() for fact in draw_facts(scene, rng, ALL_PAIRS, _LOOKUPS)]
    return _record(f"lookup-{index:05d}", _telling(scene, rng), [first.short(), *others])


def chat(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` of every kind, a record of LLaVA's JSON format; a quarter tell no scene."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "chat")
    kind, id = rng.random(), f"chat-{index:05d}"
    if kind < 0.25:
        return _record(id, "", INGREDIENTS["text_only"].make(scene, rng, ALL_PAIRS)[0])
    if kind < 0.4:
        return _record(id, _boxes(scene), region(scene, rng, ALL_PAIRS)[0])
    dialogues = pick(rng, _ABOUT).make(scene, rng, ALL_PAIRS) or CAPTION.make(scene, rng, ALL_PAIRS)
    return _record(id, _telling(scene, rng), pick(rng, dialogues))


_ABOUT = (
    *(INGREDIENTS[n] for n in ("vqa", "vqa", "conversation", "reasoning", "ocr", "choice", "textcaps", "detail")),
    CAPTION,
)


def _record(id: str, telling: str, dialogue: Dialogue) -> dict[str, Any]:
    first, *others = dialogue
    turns = []
    for exchange in (first.after(f"{telling}\n") if telling else first, *others):
        turns += [{"from": "human", "value": exchange.text}, {"from": "gpt", "value": exchange.reply}]
    return {"id": id, "conversations": turns}


def _telling(scene: Scene, rng: np.random.Generator) -> str:
    return pick(rng, (caption_text, detail_text))(scene)


def _boxes(scene: Scene) -> str:
    """The boxes are told, so only a told box can be asked about."""
    return "\n".join(f"{capital(full(item))} {box_text(scene.square_box(item))}" for item in scene.items)
