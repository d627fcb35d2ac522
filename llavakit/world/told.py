"""A scene told in words, and understood again: captions for a teacher that cannot see, and the way back.

What words do not say (exact positions, extents, the surface's tint) is made up, so a scene that was understood looks
different and yet gives the same true answers.
"""

from __future__ import annotations

import re
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.world.ask.describe import caption_text, detail_text
from llavakit.world.ask.phrase import at, called, listed, pair, sentence
from llavakit.world.scene import Background, Inscription, Scene, Thing
from llavakit.world.words import COLOURS, PATTERNS, PLACES, SHAPES, SIZES, TEXTURES, TONES

_THING = re.compile(
    rf"\b({'|'.join(SIZES)}) ({'|'.join(PATTERNS)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) "
    rf"(?:at|on|in) the ({'|'.join(sorted(PLACES, key=len, reverse=True))})\b"
)
_PRINTED = re.compile(
    rf"\b[Tt]he (?:word ([A-Z]+)|number (\d+)) (?:at|on|in) the ({'|'.join(sorted(PLACES, key=len, reverse=True))})\b"
)
_BACKGROUND = re.compile(rf"\bbackground is ({'|'.join(TONES)}) and ({'|'.join(TEXTURES)})\b", re.IGNORECASE)


def told(scene: Scene, id: str, image: str) -> dict[str, Any]:
    """A record of LLaVA's caps-and-boxes format: three captions, and every item's box as fractions of the picture."""
    brief = sentence(listed([f"{called(item, pair)} {at(item.place)}" for item in scene.items]))
    return {
        "id": id,
        "image": image,
        "captions": [caption_text(scene), brief, detail_text(scene).split(". ")[0] + "."],
        "instances": [
            {"category": pair(item), "bbox": [round(edge, 3) for edge in scene.box(item)]} for item in scene.items
        ],
    }


def understood(text: str) -> Scene:
    """The scene of captions. Raises :class:`BadRequest` when they are not in this world's words."""
    things = tuple(
        Thing(*_centre(place), colour, shape, size, pattern, extent=0.15)
        for size, pattern, colour, shape, place in _THING.findall(text)
    )
    inscriptions = tuple(
        Inscription(*_centre(place), word or number, letter_height=0.02)
        for word, number, place in _PRINTED.findall(text)
    )
    tone, texture = (_BACKGROUND.findall(text) or [(TONES[0], TEXTURES[0])])[0]
    if not things:
        raise BadRequest(f"nothing in this is said in the miniature world's words: {text[:100]!r}")
    try:
        surface = Background(tone.lower(), texture.lower(), (170, 170, 170), 0.0)
        return Scene(0, 1.0, surface, _in_order(things), _in_order(tuple(dict.fromkeys(inscriptions))))
    except ValueError as error:
        raise BadRequest(f"{error}: {text[:100]!r}") from None


def _centre(place: str) -> tuple[float, float]:
    row, column = divmod(PLACES.index(place), 3)
    return (column + 0.5) / 3, (row + 0.5) / 3


def _in_order(items: Any) -> Any:
    return tuple(sorted(items, key=lambda item: (item.row, item.column)))
