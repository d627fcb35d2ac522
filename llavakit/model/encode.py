"""encode(conversation, codec) -> Example: the only way from words and pictures to tokens.

Training, evaluation, chat and serving all come through here, and here alone ``<image>`` becomes its N ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.chat.labels import IGNORE, supervise
from llavakit.chat.render import render
from llavakit.chat.template import JinjaTemplate, Template
from llavakit.image.anyres import AnyRes, Grid, layout, tiles, token_count
from llavakit.image.open import open_image
from llavakit.image.square import Decode, Mode, Square, square


@dataclass(frozen=True)
class Example:
    """One conversation as numbers. ``ids``, ``labels`` int64[L]; ``pixels`` uint8[n, 3, S, S]; ``cut``: tokens lost
    to the maximum length; ``take`` int64[K, 2]: what each image token is, as :attr:`Batch.take` says."""

    ids: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray
    id: str = ""
    source: str = ""
    cut: int = 0
    take: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        # The first token of a sequence has nothing before it that could predict it.
        return int((self.labels[1:] != IGNORE).sum())


@dataclass(frozen=True)
class Codec:
    """All that ``encode`` needs to know of a model. ``tokenizer`` is a fast one of transformers; ``image_tokens``: what
    the tower gives for a square; ``grids``: of tiles, then ``square`` is how the global view is seen."""

    tokenizer: Any
    template: Template | JinjaTemplate
    square: Square
    image_tokens: int
    max_length: int = 2048
    grids: tuple[Grid, ...] | None = None

    def __post_init__(self) -> None:
        if self.image_id is None or self.image_id == self.tokenizer.unk_token_id:
            raise BadRecord(f"the tokenizer has no {IMAGE} token; build the model with llavakit first")

    @property
    def image_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(IMAGE)

    @property
    def side(self) -> int:
        """Patches along an edge of a square, or of a tile; a kept CLS is none of them."""
        return math.isqrt(self.image_tokens)

    def tokens_of(self, width: int, height: int) -> int:
        """Image tokens of a picture of this size, known before it is read."""
        if self.grids is None:
            return self.image_tokens
        return token_count(width, height, self.grids, self.square.size, self.side)

    @property
    def eos(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset({self.tokenizer.eos_token_id})

    def using(self, template: Template | JinjaTemplate) -> Codec:
        return replace(self, template=template)

    def seeing(self, image: Mode | AnyRes, decode: Decode = "exact") -> Codec:
        """The same, with pictures seen as one square or as tiles; ``decode``: of a square, as :class:`Square` says."""
        mode, grids = (image.global_view, image.grids) if isinstance(image, AnyRes) else (image, None)
        return replace(self, square=self.square.evolve(mode=mode, decode=decode), grids=grids)


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
    if is_image.sum() != len(conversation.images):
        raise BadRecord(
            f"the template's text has {is_image.sum()} {IMAGE} for {len(conversation.images)} image(s)",
            conversation.where,
        )
    # Tiles, and how many they are, come from the picture's true size.
    fraction = codec.square.fraction if codec.square.decode == "fast" and codec.grids is None else None
    images = [open_image(ref.source, conversation.where, fraction=fraction) for ref in conversation.images]
    counts = [codec.tokens_of(*image.size) for image in images]
    repeats = np.ones(len(ids), dtype=np.int64)
    repeats[is_image] = counts
    ids, labels = np.repeat(ids, repeats), np.repeat(labels, repeats)
    cut = max(0, len(ids) - codec.max_length)
    if prompt and len(ids) >= codec.max_length:
        raise BadRecord(
            f"the question takes {len(ids)} tokens ({len(images)} image(s) of "
            f"{', '.join(map(str, sorted(set(counts)))) or 0}) and the context holds {codec.max_length}; shorten it",
            conversation.where,
        )
    if cut:
        ids, labels = ids[: codec.max_length], labels[: codec.max_length]
        if (ids == codec.image_id).sum() != sum(counts):
            raise BadRecord(f"is over {codec.max_length} tokens and the cut falls into an image", conversation.where)
        if not (labels[1:] != IGNORE).any():
            raise BadRecord(f"nothing supervised is left after the cut at {codec.max_length}", conversation.where)
    if codec.grids is None:
        parts, take = [square(image, codec.square)[None] for image in images], None
    else:
        parts = [tiles(image, codec.grids, codec.square) for image in images]
        layouts = [layout(*image.size, codec.grids, codec.square.size, codec.side) for image in images]
        take = _joined(layouts, [len(part) for part in parts])
    side = codec.square.size
    pixels = np.concatenate(parts) if parts else np.empty((0, 3, side, side), dtype=np.uint8)
    return Example(ids, labels, pixels, conversation.id, conversation.source, cut, take)


def pictures(examples: Sequence[Example]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The pixels of examples end to end (None without any), and their ``take`` counted through all of them."""
    pixels = np.concatenate([example.pixels for example in examples])
    if not len(pixels):
        return None, None
    takes = [example.take for example in examples if example.take is not None]
    return pixels, _joined(takes, [len(example.pixels) for example in examples]) if takes else None


def _joined(takes: Sequence[np.ndarray], images: Sequence[int]) -> np.ndarray:
    """Several ``take`` as one, over images end to end; ``images``: how many each of them is over."""
    out = np.concatenate([np.empty((0, 2), dtype=np.int64), *takes])
    first = np.repeat(np.cumsum([0, *images[:-1]]), [len(take) for take in takes]) if len(takes) else 0
    out[:, 0] += np.where(out[:, 0] < 0, 0, first)
    return out
