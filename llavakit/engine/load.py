"""``load(path)``: a checkpoint as something to talk to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from llavakit.chat.conversation import Conversation, ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.sample import GREEDY, Decoding
from llavakit.model import checkpoint
from llavakit.model.quantise import Bits, quantise

Precision = Literal["float32", "fast"]
"""``fast``: bfloat16, and in OpenVINO what it takes for speed; answers may differ."""


class Assistant:
    """A loaded model: :meth:`ask` about a picture, :meth:`chat` with history, :meth:`answer` many conversations."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def ask(self, image: str | Path | bytes | Any | None, text: str, how: Decoding = GREEDY) -> str:
        """The answer to one question about a picture (a path, encoded bytes, a ``PIL.Image``, or None)."""
        return next(self.answer([question(text, *_refs(image))], how))

    def answer(self, conversations: Iterable[Conversation], how: Decoding = GREEDY) -> Iterator[str]:
        """The assistant's next turn of each conversation, in order."""
        return self.engine.answer(conversations, how)

    def chat(self, image: str | Path | bytes | Any | None = None, how: Decoding = GREEDY) -> Chat:
        """A talk with history, about a picture or none."""
        return Chat(self.engine, _refs(image), how)


class Chat:
    """Turns so far, and the pictures they speak of."""

    def __init__(self, engine: Engine, images: tuple[ImageRef, ...], how: Decoding) -> None:
        self.engine = engine
        self.how = how
        self.waiting = images
        self.conversation = Conversation(())

    def show(self, image: str | Path | bytes | Any) -> None:
        """Adds a picture; it is put before the next question."""
        self.waiting = (*self.waiting, *_refs(image))

    def say(self, text: str) -> Iterator[str]:
        """Asks; yields the answer in pieces. Question and answer enter the history when the answer is complete; where
        the model says nothing, neither does."""
        turn = question(text, *self.waiting).turns[0]
        asked = Conversation((*self.conversation.turns, turn), (*self.conversation.images, *self.waiting))
        pieces = []
        for piece in self.engine.stream(asked, self.how):
            pieces.append(piece)
            yield piece
        if pieces:
            self.conversation = asked.answer("".join(pieces))
            self.waiting = ()


def large_pages() -> None:
    """Has PyTorch ask for memory in pages of 2 MiB, where Linux gives them, from this process's first large tensor on.

    Decoding reads every weight for every token, and is faster on a CPU where no page is looked up for each 4 KiB.
    Not so for training, whose tensors come and go, each cleared by the page: figures of both in BENCHMARKS.md.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def load(
    path: str | Path,
    device: str | None = None,
    batch_size: int = 32,
    quantize: Bits | None = None,
    precision: Precision | None = None,
) -> Assistant:
    """Loads a native ``llava`` checkpoint: a directory or a hub id. Without ``precision`` float32 on a CPU, fast on a
    GPU.

    With ``quantize`` the language model's layers are held in 8 or 4 bits (:mod:`llavakit.model.quantise`) and all else
    in bfloat16; the device never holds the unquantised layers.
    """
    large_pages()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    fast = device.startswith("cuda") if precision is None else precision == "fast"
    dtype = torch.bfloat16 if fast or quantize else torch.float32
    model, codec = checkpoint.load(path, dtype, "cpu" if quantize else device)
    if quantize:
        quantise(model.language_model, quantize, device)
        model.to(device)
    return Assistant(Engine(model, codec, batch_size))


def _refs(image: Any) -> tuple[ImageRef, ...]:
    if image is None:
        return ()
    return (ImageRef(Path(image) if isinstance(image, str) else image),)
