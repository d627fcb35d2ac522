"""Questions about the printed text, as OCR-VQA and TextVQA ask them."""

from __future__ import annotations

import numpy as np

from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs
from llavakit.world.ask.phrase import at, capital, pick
from llavakit.world.scene import Inscription, Scene
from llavakit.world.words import WORDS


def reading(scene: Scene, rng: np.random.Generator, inscription: Inscription) -> Exchange:
    """What is printed? Asked by its kind, or by its place."""
    kind, place = inscription.kind, at(inscription.place)
    question = pick(
        rng,
        (f"What {kind} is printed in the image?", f"What {kind} is printed {place}?", f"What is printed {place}?"),
    )
    return Exchange(question, inscription.text, kind)


def printed(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """Reading, presence (no as often as yes) and place of what is printed; nothing for a scene without text."""
    exchanges = []
    for item in scene.inscriptions:
        exchanges.append(reading(scene, rng, item))
        yes = bool(rng.random() < 0.5)
        text = item.text if yes else _another(rng, item)
        question = f"Is the {item.kind} {text} printed in the image?"
        exchanges.append(Exchange(question, "Yes" if yes else "No", f"{item.kind} presence"))
        exchanges.append(Exchange(f"Where is the {item.kind} printed?", capital(item.place), f"{item.kind} place"))
    order = rng.permutation(len(exchanges))
    return [[exchanges[int(i)].short() for i in order]] if exchanges else []


def _another(rng: np.random.Generator, item: Inscription) -> str:
    options = WORDS if item.kind == "word" else tuple(str(n) for n in range(10, 100))
    return pick(rng, [text for text in options if text != item.text])
