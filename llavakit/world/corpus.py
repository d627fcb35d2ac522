"""Text for a language model's pre-training: scenes told in words, then questions and answers about them.

The model learns the world's language and to look things up in what stands before. Only words: these scenes (split
"words") are free to name held-out combinations, which no picture or text about a picture in training does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llavakit.world.ask.describe import caption_text, detail_text
from llavakit.world.ask.exchange import Dialogue
from llavakit.world.ask.facts import draw_facts
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
        # The boxes are told, so only a told box can be asked about.
        told = "\n".join(f"{capital(full(item))} {box_text(scene.square_box(item))}" for item in scene.items)
        return f"{told}\n{_asked(region(scene, rng, ALL_PAIRS)[0])}"
    if kind < 0.45:
        return f"{caption_text(scene)}\n{detail_text(scene)}"
    telling: Callable[[Scene], str] = pick(rng, (caption_text, detail_text))
    if kind < 0.75:
        # Little else than looking up: many short questions about one telling.
        facts = draw_facts(scene, rng, ALL_PAIRS, 16)
        return "\n".join([telling(scene), *(f"{fact.question} {fact.exchange().reply}" for fact in facts)])
    ingredient = pick(rng, _ABOUT)
    dialogues = ingredient.make(scene, rng, ALL_PAIRS)
    return f"{telling(scene)}\n{_asked(pick(rng, dialogues))}" if dialogues else telling(scene)


def _asked(dialogue: Dialogue) -> str:
    return "\n".join(f"Question: {exchange.text}\nAnswer: {exchange.reply}" for exchange in dialogue)


_ABOUT = (
    *(INGREDIENTS[n] for n in ("vqa", "vqa", "conversation", "reasoning", "ocr", "choice", "textcaps", "detail")),
    CAPTION,
)
