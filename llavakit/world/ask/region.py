"""Box to phrase and phrase to box. Boxes are of the picture padded to a square, two decimals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llavakit.world.ask.exchange import Dialogue, Exchange
from llavakit.world.ask.facts import Pairs
from llavakit.world.ask.phrase import at, capital, full
from llavakit.world.scene import Box, Item, Scene, Thing
from llavakit.world.words import BOX, REGION

_MOST = 4  # exchanges a conversation


def box_text(box: Box) -> str:
    """ "[0.12, 0.30, 0.25, 0.44]"."""
    return f"[{', '.join(f'{value:.2f}' for value in box)}]"


def region(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """One conversation over some of the items, each asked one way or the other at random."""
    items = [scene.items[int(i)] for i in rng.permutation(len(scene.items))[:_MOST]]
    return [[_exchange(scene, item, to_box=bool(rng.random() < 0.5)) for item in items]]


def described(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> list[Dialogue]:
    """Every item, asked for by its box, as Visual Genome describes a picture's regions: its phrase and its place."""
    told = [(_exchange(scene, item, to_box=False), at(item.place)) for item in scene.items]
    return [[replace(exchange, reply=f"{exchange.reply} {place}") for exchange, place in told]]


def _exchange(scene: Scene, item: Item, to_box: bool) -> Exchange:
    box, name = box_text(scene.square_box(item)), full(item)
    novel = isinstance(item, Thing) and item.novel
    if to_box:
        return Exchange(f"{BOX} {capital(name)}", box, "phrase to box", "box", novel=novel)
    return Exchange(f"{REGION} {box}", capital(name), "box to phrase", novel=novel)
