"""Words for the language model: documents for its pre-training, and conversations about scenes that are told.

From documents it learns the world's language, from conversations to look things up in what stands before: there only
answers are supervised, which takes a tenth of the text (questions cannot be foreseen, and drown the rest). No pictures:
these scenes (split "words") are free to name held-out combinations, which nothing about a picture in training does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from llavakit.world.ask.describe import caption_text, detail_text
from llavakit.world.ask.exchange import Dialogue
from llavakit.world.ask.phrase import capital, full, pick
from llavakit.world.ask.region import box_text, region
from llavakit.world.ask.table import ALL_PAIRS, CAPTION, INGREDIENTS
from llavakit.world.sample import rng_of, sample_scene
from llavakit.world.scene import Scene


def corpus(seed: int, number: int) -> Iterator[str]:
    """``number`` documents, each of a few lines, none with an empty one."""
    return (document(seed, index) for index in range(number))


def document(seed: int, index: int) -> str:
    """Document ``index``: the same for the same arguments."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "corpus")
    kind = rng.random()
    if kind < 0.15:
        return _asked(INGREDIENTS["text_only"].make(scene, rng, ALL_PAIRS)[0])
    if kind < 0.35:
        return f"{_boxes(scene)}\n{_asked(region(scene, rng, ALL_PAIRS)[0])}"
    if kind < 0.45:
        return f"{caption_text(scene)}\n{detail_text(scene)}"
    telling = _telling(rng)
    dialogues = pick(rng, _ABOUT).make(scene, rng, ALL_PAIRS)
    return f"{telling(scene)}\n{_asked(pick(rng, dialogues))}" if dialogues else telling(scene)


def chat(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index``, a record of LLaVA's JSON format: the first question tells the scene. Two in three are
    many short questions."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "chat")
    kind, telling = rng.random(), _telling(rng)(scene)
    dialogues = INGREDIENTS["vqa"].make(scene, rng, ALL_PAIRS)
    if kind < 0.1:
        dialogues, telling = region(scene, rng, ALL_PAIRS), _boxes(scene)
    elif kind < 0.35:
        dialogues = pick(rng, _ABOUT).make(scene, rng, ALL_PAIRS) or dialogues
    first, *others = pick(rng, dialogues)
    turns = []
    for exchange in (first.after(f"{telling}\n"), *others):
        turns += [{"from": "human", "value": exchange.text}, {"from": "gpt", "value": exchange.reply}]
    return {"id": f"chat-{index:05d}", "conversations": turns}


def _telling(rng: np.random.Generator) -> Callable[[Scene], str]:
    telling: Callable[[Scene], str] = pick(rng, (caption_text, detail_text))
    return telling


def _boxes(scene: Scene) -> str:
    """The boxes are told, so only a told box can be asked about."""
    return "\n".join(f"{capital(full(item))} {box_text(scene.square_box(item))}" for item in scene.items)


def _asked(dialogue: Dialogue) -> str:
    return "\n".join(f"Question: {exchange.text}\nAnswer: {exchange.reply}" for exchange in dialogue)


_ABOUT = (
    *(INGREDIENTS[n] for n in ("vqa", "vqa", "conversation", "reasoning", "ocr", "choice", "textcaps", "detail")),
    CAPTION,
)
