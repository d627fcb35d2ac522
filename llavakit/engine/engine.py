"""Engine: conversations of any lengths and pictures, answered together; what they share is computed once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from llavakit.base.log import log
from llavakit.chat.conversation import Conversation
from llavakit.engine.batch import Batch
from llavakit.engine.cache import Features, Prefixes
from llavakit.engine.decoder import Decoder, fits
from llavakit.engine.linear import Packer, packing
from llavakit.engine.pictures import Pictures
from llavakit.engine.plain import Plain
from llavakit.engine.request import Piece, Request
from llavakit.engine.sample import GREEDY, Decoding
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.llava import Llava


class Engine:
    """Answers conversations with a model. Not thread-safe: :class:`~llavakit.engine.service.Service` is.

    ``batch_size``: how many answers are written together. ``cache_bytes``: of prefixes, and of picture features a
    quarter of it; a sixteenth of the machine's memory where it is not given. Weights are read when the engine is made,
    and on a CPU copied into the layout of its kernels where a quarter of memory holds the language model's.
    ``decoder``: what runs the language model, with the methods of :class:`~llavakit.engine.decoder.Decoder`, in place
    of ours.
    """

    def __init__(
        self, model: Llava, codec: Codec, batch_size: int = 32, cache_bytes: int | None = None, decoder: Any = None
    ) -> None:
        self.model = model.eval()
        self.codec = codec
        limit = _memory(model.device) // 16 if cache_bytes is None else cache_bytes
        self.features = Features(limit // 4)
        self.prefixes = Prefixes(limit)
        decoder = decoder or _decoder(model.language_model)
        packed: AbstractContextManager[None] = nullcontext()
        if isinstance(decoder, Decoder) and decoder.pack is not None:
            packed = Packer(decoder.pack, model.vision_tower, model.multi_modal_projector)
        pictures = Pictures(model, codec.image_id, self.features, packed)
        self.batch = Batch(decoder, pictures, self.prefixes, batch_size)

    @property
    def batch_size(self) -> int:
        return self.batch.places

    def answer(self, conversations: Iterable[Conversation], how: Decoding = GREEDY) -> Iterator[str]:
        """Texts of the assistant's next turn, in the order of ``conversations``, which are read a few batches ahead.

        Raises :class:`~llavakit.base.errors.BadRecord` for a conversation that cannot be encoded.
        """
        examples = (encode(conversation, self.codec, prompt=True) for conversation in conversations)
        for pieces in self.replies(examples, how):
            yield "".join(piece.text for piece in pieces)

    def replies(self, examples: Iterable[Example], how: Decoding = GREEDY, logprobs: int = 0) -> Iterator[list[Piece]]:
        """The pieces of each answer, in order. Questions about one picture in a row share it even when the cache is
        small."""
        pending = iter(examples)
        asked: deque[tuple[Request, list[Piece]]] = deque()
        try:
            while True:
                while len(asked) < 4 * self.batch_size and (example := next(pending, None)) is not None:
                    pieces: list[Piece] = []
                    asked.append((self.request(example, how, pieces, logprobs), pieces))
                if not asked:
                    return
                while asked[0][0].finish is None:
                    self.batch.step()
                yield asked.popleft()[1]
        finally:
            self._withdraw([request for request, _ in asked])

    def stream(self, conversation: Conversation, how: Decoding = GREEDY) -> Iterator[str]:
        """The assistant's next turn in pieces, as they are written; joined they are what :meth:`answer` gives."""
        pieces: list[Piece] = []
        request = self.request(encode(conversation, self.codec, prompt=True), how, pieces, keep=True)
        try:
            while pieces or request.finish is None:
                if not pieces:
                    self.batch.step()
                while pieces:
                    if text := pieces.pop(0).text:
                        yield text
        finally:
            self._withdraw([request])

    def request(
        self, example: Example, how: Decoding, pieces: list[Piece], logprobs: int = 0, keep: bool = False
    ) -> Request:
        """Puts a question to the batch; its answer comes into ``pieces`` as the batch steps."""
        request = Request(example, how, self.codec, pieces.append, logprobs, keep)
        self.batch.add(request)
        return request

    def _withdraw(self, requests: Iterable[Request]) -> None:
        """Frees the places of answers that nobody waits for."""
        for request in requests:
            request.cancelled = True
        self.batch.sweep()


def _decoder(language_model: Any) -> Decoder | Plain:
    """Our own decoder where the model is built like Llama's, transformers' cache where it is not; says which."""
    if why := fits(language_model):
        kind = type(language_model).__name__
        log.info(f"{kind} is decoded through transformers' own cache, which is slower: {why}")
        return Plain(language_model)
    pack = packing(
        language_model.get_output_embeddings().weight, language_model.base_model.layers[0].self_attn.head_dim
    )
    size = sum(tensor.numel() * tensor.element_size() for tensor in language_model.parameters())
    if pack is not None and size > _memory(language_model.device) // 4:
        log.info("the weights are not copied into the layout of the processor's kernels: they take too much memory")
        pack = None
    return Decoder(language_model, pack)


def _memory(device: torch.device) -> int:
    """Bytes of the machine's memory, or of the GPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
