"""Random crops and horizontal flips of a sample's pictures, where its text stays true of them. Off by default."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from PIL import Image

from llavakit.chat.conversation import Conversation, ImageRef
from llavakit.eval.prompts import LETTER, SHORT
from llavakit.image.open import open_image

BOX = r"\[\s*\d*\.?\d+(?:\s*,\s*\d*\.?\d+){3}\s*\]|\bbounding box|\bregion\b"
WRITING = (
    r"\b(?:texts?|words?|letters?|digits?|reads?|says?|wr(?:ite|itten|iting)|spell\w*|signs?|labels?|logos?|titles?|"
    r"authors?|brands?|captions?|numbers?|ocr|clock|time|date|license|plate)\b"
)
SIDES = r"\b(?:left|right|clockwise|east|west)\b"
MARGINS = r"\b(?:how many|number|count\w*|corners?|edges?|borders?|top|bottom|background)\b"

# What a format prompt says of words and letters is not about the picture.
_FORMAT = re.compile("|".join(map(re.escape, (SHORT, LETTER))), re.IGNORECASE)
_NO_FLIP = re.compile("|".join((BOX, WRITING, SIDES)), re.IGNORECASE)
_NO_CROP = re.compile("|".join((BOX, WRITING, MARGINS)), re.IGNORECASE)

KEPT = 0.8
"""Least share of the area that a crop leaves; its shape is the picture's."""


def may_flip(conversation: Conversation) -> bool:
    """Whether no turn speaks of left and right, of writing, or of boxes."""
    return not any(_NO_FLIP.search(_FORMAT.sub("", turn.text)) for turn in conversation.turns)


def may_crop(conversation: Conversation) -> bool:
    """Whether no turn speaks of boxes, of writing, of how many there are, or of what is at the margin."""
    return not any(_NO_CROP.search(_FORMAT.sub("", turn.text)) for turn in conversation.turns)


def augment(conversation: Conversation, rng: np.random.Generator) -> Conversation:
    """The conversation with each picture cropped and, every second time, flipped, as far as its text allows.

    Raises :class:`~llavakit.base.errors.BadRecord` for a picture that cannot be read.
    """
    crops, flips = may_crop(conversation), may_flip(conversation)
    if not conversation.images or not (crops or flips):
        return conversation
    images = []
    for ref in conversation.images:
        # Drawn whether used or not: what one rule says must not change the other's chance.
        share, x, y, coin = rng.uniform(KEPT, 1), rng.uniform(), rng.uniform(), rng.uniform()
        image = open_image(ref.source, conversation.where)
        if crops:
            width, height = (max(1, round(side * share**0.5)) for side in image.size)
            left, top = round(x * (image.width - width)), round(y * (image.height - height))
            image = image.crop((left, top, left + width, top + height))
        if flips and coin < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        images.append(ImageRef(image))
    return replace(conversation, images=tuple(images))
