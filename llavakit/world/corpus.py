"""Words for the language model: conversations about scenes that are told, never drawn.

It learns the world's language from them, and to look things up in what stands before: first from :func:`lookup`, many
short questions about one scene, until it can; then also from :func:`chat`, all else that is asked. (The other way round
long answers drown the short ones, and look-up does not form.) The scene is told as the regions of a picture, or in a
sentence. These scenes (split "words") are free to name held-out combinations, which no picture in training shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llavakit.world.ask.describe import caption_text, detail_text
from llavakit.world.ask.exchange import Dialogue
from llavakit.world.ask.facts import draw_facts
from llavakit.world.ask.phrase import capital, full, pick
from llavakit.world.ask.region import box_text, region
from llavakit.world.ask.table import ALL_PAIRS, CAPTION, INGREDIENTS, REGIONS
from llavakit.world.sample import rng_of, sample_scene
from llavakit.world.scene import Scene

_LOOKUPS = 14


def lookup(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` of short questions, a record of LLaVA's JSON format; half end with a description."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "lookup")
    first, *others = [fact.exchange() for fact in draw_facts(scene, rng, ALL_PAIRS, _LOOKUPS)]
    if rng.random() < 0.5:
        others += pick(rng, (CAPTION, INGREDIENTS["detail"])).make(scene, rng, ALL_PAIRS)[0]
    return _record(f"lookup-{index:05d}", "<image>", [first.short(), *others]) | {"image": picture(index)}


def regions(seed: int, index: int) -> dict[str, Any]:
    """What the picture of :func:`lookup` ``index`` would show: its regions, a record of LLaVA's JSON format."""
    (record,) = REGIONS.records(seed, index, "words", picture(index), sample_scene(seed, index, "words"))
    return record


def picture(index: int) -> str:
    """The name of a picture that is told and not drawn."""
    return f"told/{index:05d}"


def chat(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` of every kind, a record of LLaVA's JSON format; a third tell no scene."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "chat")
    kind, id = rng.random(), f"chat-{index:05d}"
    if kind < 0.35:
        return _record(id, "", INGREDIENTS["text_only"].make(scene, rng, ALL_PAIRS)[0])
    if kind < 0.45:
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
