"""The ingredients of the miniature mix, each with the part of LLaVA-1.5's data that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llavakit.base.errors import BadRequest
from llavakit.world.ask.choice import choice
from llavakit.world.ask.describe import caption, detail, textcaps
from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs, draw_facts
from llavakit.world.ask.printed import printed
from llavakit.world.ask.reason import reasoning
from llavakit.world.ask.region import described, region
from llavakit.world.ask.talk import talk
from llavakit.world.sample import rng_of, sample_scene
from llavakit.world.scene import Scene
from llavakit.world.words import COLOURS, HELD_OUT, SHAPES

ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
KNOWN_PAIRS = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT)


def vqa(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """The QA pairs of one image, merged into one conversation; the format prompt stands with the first question, as in
    the published file."""
    first, *others = [fact.exchange() for fact in draw_facts(scene, rng, pairs, int(rng.integers(4, 8)))]
    return [[first.short(), *others]]


def conversation(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """Two to four turns of questions with definite answers, in whole sentences."""
    exchanges = [fact.spoken() for fact in draw_facts(scene, rng, pairs, int(rng.integers(2, 5)))]
    if scene.inscriptions and rng.random() < 0.5:
        item = scene.inscriptions[int(rng.integers(len(scene.inscriptions)))]
        reply = f"The {item.kind} {item.text} is printed in the image."
        exchanges[-1] = Exchange(f"What {item.kind} is in the image?", reply, item.kind, "contains", (item.text,))
    return [exchanges]


@dataclass(frozen=True)
class Ingredient:
    """``stands_for``: its counterpart; ``share``: the part of the training images it is asked about;
    ``image_last``: whether ``<image>`` stands behind the first question half the time (v1's order); ``prompt_once``:
    whether the short-answer prompt stands with the first question only."""

    name: str
    stands_for: str
    make: Callable[[Scene, np.random.Generator, Pairs], list[Dialogue]]
    share: float
    image_last: bool = False
    pictured: bool = True
    prompt_once: bool = False

    def dialogues(self, seed: int, index: int, split: str, scene: Scene | None = None) -> list[Dialogue]:
        """What is said about scene ``index`` of a split; ``scene`` saves sampling it again. May be empty."""
        if not self.pictured:
            scene = sample_scene(seed, index, f"{split}, told")
        return self.make(
            scene or sample_scene(seed, index, split),
            rng_of(seed, index, f"{split}/{self.name}"),
            ALL_PAIRS if split == "test" else KNOWN_PAIRS,
        )

    def chosen(self, seed: int, index: int) -> bool:
        """Whether training image ``index`` is one of this ingredient's share."""
        return bool(rng_of(seed, index, f"share/{self.name}").random() < self.share)

    def records(
        self, seed: int, index: int, split: str, image: str, scene: Scene | None = None
    ) -> list[dict[str, Any]]:
        """The dialogues as records of LLaVA's JSON format; ``image`` is the picture's relative path."""
        rng = rng_of(seed, index, f"{split}/{self.name}/order")
        dialogues = self.dialogues(seed, index, split, scene)
        return [self._record(f"{self.name}-{index:05d}-{n}", d, image, rng) for n, d in enumerate(dialogues)]

    def _record(self, id: str, dialogue: Dialogue, image: str, rng: np.random.Generator) -> dict[str, Any]:
        turns = []
        for exchange in dialogue:
            turns += [{"from": "human", "value": exchange.text}, {"from": "gpt", "value": exchange.reply}]
        if not self.pictured:
            return {"id": id, "conversations": turns}
        last = self.image_last and rng.random() < 0.5
        turns[0]["value"] = f"{turns[0]['value']}\n<image>" if last else f"<image>\n{turns[0]['value']}"
        return {"id": id, "image": image, "conversations": turns}


CAPTION = Ingredient("caption", "558K captions of stage 1", caption, 1.0, image_last=True)
REGIONS = Ingredient("regions", "region descriptions, for the vision tower", described, 1.0)

INGREDIENTS: dict[str, Ingredient] = {
    ingredient.name: ingredient
    for ingredient in (
        Ingredient("conversation", "LLaVA-Instruct, conversations", conversation, 0.5, image_last=True),
        Ingredient("detail", "LLaVA-Instruct, detailed descriptions", detail, 0.5, image_last=True),
        Ingredient("reasoning", "LLaVA-Instruct, complex reasoning", reasoning, 0.5, image_last=True),
        Ingredient("text_only", "ShareGPT", talk, 0.5, pictured=False),
        Ingredient("vqa", "VQAv2, GQA, OKVQA", vqa, 1.0, prompt_once=True),
        Ingredient("ocr", "OCR-VQA", printed, 0.7),
        Ingredient("choice", "A-OKVQA", choice, 0.15),
        Ingredient("textcaps", "TextCaps", textcaps, 0.3),
        Ingredient("region", "RefCOCO, Visual Genome", region, 0.7),
    )
}
"""The instruction mix. Stage 1 is :data:`CAPTION`."""


def questions(ingredient: Ingredient, seed: int, scenes: int, number: int, image: Callable[[int], str]) -> list[Any]:
    """``number`` held-out questions over the first ``scenes`` test scenes, going round them again when they run out.

    Every question is asked alone. Raises :class:`BadRequest` when no scene can be asked about.
    ``image``: from a scene's index to its picture's relative path.
    """
    made: list[Any] = []
    index = 0
    while len(made) < number:
        # A further round draws anew: its index is beyond the scenes.
        scene = sample_scene(seed, index % scenes, "test")
        dialogues = ingredient.dialogues(seed, index, "test", scene)
        if dialogues:
            rng = rng_of(seed, index, f"test/{ingredient.name}/asked")
            dialogue = dialogues[int(rng.integers(len(dialogues)))]
            # In a told scene only the first question carries the telling.
            asked = dialogue[int(rng.integers(len(dialogue)))] if ingredient.pictured else dialogue[0]
            if ingredient.prompt_once and asked is not dialogue[0]:
                asked = asked.short()
            picture = image(index % scenes) if ingredient.pictured else None
            made.append(asked.record(f"{ingredient.name}-{len(made):04d}", picture))
        index += 1
        if index == scenes and not made:
            raise BadRequest(f"no test scene can be asked about for {ingredient.name!r}; build with more test pictures")
    return made
