"""encode(conversation, codec) -> Example: the only way from words and pictures to tokens.

Training, evaluation, chat and serving all come through here, and here alone ``<image>`` becomes its N ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.chat.labels import IGNORE, supervise
from llavakit.chat.render import render
from llavakit.chat.template import JinjaTemplate, Template
from llavakit.image.open import open_image
from llavakit.image.square import Square, square


@dataclass(frozen=True)
class Example:
    """One conversation as numbers. ``ids``, ``labels`` int64[L]; ``pixels`` uint8[n, 3, S, S]; ``cut``: tokens lost
    to the maximum length."""

    ids: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray
    id: str = ""
    source: str = ""
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        # The first token of a sequence has nothing before it that could predict it.
        return int((self.labels[1:] != IGNORE).sum())


@dataclass(frozen=True)
class Codec:
    """All that ``encode`` needs to know of a model. ``tokenizer`` is a fast one of transformers."""

    tokenizer: Any
    template: Template | JinjaTemplate
    square: Square
    image_tokens: int
    max_length: int = 2048

    def __post_init__(self) -> None:
        if self.image_id is None or self.image_id == self.tokenizer.unk_token_id:
            raise BadRecord(f"the tokenizer has no {IMAGE} token; build the model with llavakit first")

    @property
    def image_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(IMAGE)

    @property
    def eos(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset({self.tokenizer.eos_token_id})

    def using(self, template: Template | JinjaTemplate) -> Codec:
        return replace(self, template=template)


def encode(conversation: Conversation, codec: Codec, *, prompt: bool = False) -> Example:
    """Encodes a conversation: with ``prompt`` up to where the assistant is to speak, else for training.

    Training text longer than ``max_length`` is cut after the images' expansion, as the original does; a prompt is
    never cut. Raises :class:`BadRecord` for an unsound conversation or image, a prompt with no room for an answer,
    and a training sample whose cut would split an image or leave nothing to learn.
    """
    conversation.checked()
    if not prompt and not conversation.answered:
        raise BadRecord("the last word is not the assistant's, so there is nothing to learn", conversation.where)
    tokenizer = codec.tokenizer
    rendered = render(conversation, codec.template, tokenizer.bos_token or "", tokenizer.eos_token or "", prompt=prompt)
    encoding = tokenizer.backend_tokenizer.encode(rendered.text, add_special_tokens=False)
    ids = np.asarray(encoding.ids, dtype=np.int64)
    if prompt:
        labels = np.full(len(ids), IGNORE, dtype=np.int64)
    else:
        labels = supervise(ids, encoding.offsets, rendered.spans, rendered.text, conversation.where)
    is_image = ids == codec.image_id
    repeats = np.where(is_image, codec.image_tokens, 1)
    ids, labels = np.repeat(ids, repeats), np.repeat(labels, repeats)
    cut = max(0, len(ids) - codec.max_length)
    if prompt and len(ids) >= codec.max_length:
        raise BadRecord(
            f"the question takes {len(ids)} tokens ({int(is_image.sum())} image(s) of {codec.image_tokens}) and the "
            f"context holds {codec.max_length}; shorten it",
            conversation.where,
        )
    if cut:
        ids, labels = ids[: codec.max_length], labels[: codec.max_length]
        if (ids == codec.image_id).sum() != is_image.sum() * codec.image_tokens:
            raise BadRecord(f"is over {codec.max_length} tokens and the cut falls into an image", conversation.where)
        if not (labels[1:] != IGNORE).any():
            raise BadRecord(f"nothing supervised is left after the cut at {codec.max_length}", conversation.where)
    pixels = [square(open_image(ref.source, conversation.where), codec.square) for ref in conversation.images]
    side = codec.square.size
    stacked = np.stack(pixels) if pixels else np.empty((0, 3, side, side), dtype=np.uint8)
    return Example(ids, labels, stacked, conversation.id, conversation.source, cut)
