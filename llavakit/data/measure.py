"""Tokens of conversations without a model: a tokenizer, a template, and how many tokens a picture takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.chat.conversation import IMAGE, Conversation, ImageRef
from llavakit.chat.labels import IGNORE
from llavakit.model.encode import Codec, encode

ENDLESS = 1 << 40


@dataclass(frozen=True)
class Measure:
    """Length of a training sequence and what its cut at the codec's ``max_length`` loses. ``refused`` is why training
    would not take the sample, or empty."""

    tokens: int
    supervised: int
    lost: int = 0
    lost_supervised: int = 0
    refused: str = ""


def measure(conversation: Conversation, codec: Codec) -> Measure:
    """Counts through ``encode`` itself. Raises :class:`BadRecord` where it refuses the text for anything but length."""
    # Pictures of the true size without their pixels: nothing is decoded, and their tokens may depend on it.
    blank = replace(conversation, images=tuple(_blank(ref) for ref in conversation.images))
    whole = encode(blank, replace(codec, max_length=ENDLESS))
    limit = codec.max_length
    lost = max(0, len(whole) - limit)
    refused = ""
    if lost:
        try:
            encode(blank, codec)
        except BadRecord as error:
            refused = error.reason
    return Measure(
        tokens=len(whole),
        supervised=whole.supervised,
        lost=lost,
        lost_supervised=int((whole.labels[limit:] != IGNORE).sum()),
        refused=refused,
    )


def _blank(ref: ImageRef) -> ImageRef:
    try:
        with Image.open(ref.source) as image:
            size = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        size = (1, 1)  # the picture itself is checked elsewhere
    return ImageRef(Image.new("RGB", size))


def load_tokenizer(path: str | Path) -> Any:
    """A fast tokenizer of transformers that knows ``<image>``. Raises :class:`BadRequest` when there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadRequest(f"no tokenizer at {path}: {first}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise BadRequest(f"{path} has no fast tokenizer, and supervised spans need character offsets")
    if tokenizer.convert_tokens_to_ids(IMAGE) in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    return tokenizer
