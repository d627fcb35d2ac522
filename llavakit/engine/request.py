"""One conversation on its way to an answer, and the pieces in which the answer comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from llavakit.engine.beams import Beams
from llavakit.engine.cache import Path
from llavakit.engine.sample import Decoding
from llavakit.engine.text import Writer
from llavakit.model.encode import Codec, Example

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its text, and the natural logarithm of the probability that the model gave it (before temperature).
    ``top``: the most likely tokens in its place, best first, themselves without ``top``."""

    id: int
    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer. ``text`` may be empty while a character or a stop string is incomplete; ``ids`` are the
    tokens since the last piece; ``logprobs`` one for each of them, where they were asked for."""

    text: str
    ids: list[int]
    logprobs: list[TokenLogprob] | None = None


class Request:
    """An encoded conversation, how it is to be answered, and how far that is.

    ``give`` takes each piece. ``keep``: whether what was computed for question and answer stays, so that a next turn
    need not compute it again. ``continues``: whether the answer goes on with the prompt's text. Setting
    :attr:`cancelled` ends it before the next step.
    """

    def __init__(
        self,
        example: Example,
        how: Decoding,
        codec: Codec,
        give: Callable[[Piece], None],
        logprobs: int = 0,
        keep: bool = False,
        continues: bool = False,
    ) -> None:
        self.example, self.how, self.give, self.logprobs, self.keep = example, how, give, logprobs, keep
        self.finish: Finish | None = None
        self.cancelled = False
        self.ids: list[int] = []
        self.room = min(how.max_new_tokens, codec.max_length - len(example))
        self.eos: frozenset[int] = codec.eos
        self.generator = torch.Generator().manual_seed(how.seed)
        self.rows: list[int] = []
        self.path: Path = ()
        self.keys = np.empty(0, dtype=np.int64)
        self.hashes: list[int] = []
        self._tokenizer = codec.tokenizer
        self._writer = Writer(codec.tokenizer, how.stop, example.ids[-8:].tolist() if continues else ())
        self._prompt_ids = frozenset(example.ids.tolist()) if how.repetition_penalty != 1 else frozenset()
        self.beams: Beams | None = None
        if how.num_beams > 1:
            self.beams = Beams(how, self._prompt_ids, self.eos, self.room, self._stops)

    @property
    def seen(self) -> frozenset[int]:
        """Ids that a repetition penalty touches."""
        return self._prompt_ids | set(self.ids) if self.how.repetition_penalty != 1 else self._prompt_ids

    def take(self, id: int, logits: torch.Tensor | None) -> None:
        """The next token, chosen from ``logits float[V]``, which are asked for only where ``logprobs`` are."""
        if id in self.eos:
            return self.end("stop")
        self.ids.append(id)
        logprobs = None if logits is None else [self._logprob(id, logits)]
        text = self._writer.push(id)
        full = len(self.ids) >= self.room
        if full and not self._writer.stopped:
            text += self._writer.end()
        self.give(Piece(text, [id], logprobs))
        if self._writer.stopped:
            self.finish = "stop"
        elif full:
            self.finish = "length"

    def take_all(self, ids: Sequence[int]) -> None:
        """The whole answer, from a search."""
        self.ids = [id for id in ids if id not in self.eos]
        text = "".join(map(self._writer.push, self.ids)) + self._writer.end()
        self.give(Piece(text, self.ids))
        ended = len(self.ids) < len(ids) or self._writer.stopped
        self.finish = "stop" if ended else "length"

    def end(self, finish: Finish) -> None:
        """No more tokens; what was held back is given."""
        rest = self._writer.end()
        if rest:
            self.give(Piece(rest, []))
        self.finish = finish

    def _stops(self, ids: list[int]) -> bool:
        if not self.how.stop:
            return False
        text = self._tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop in text for stop in self.how.stop)

    def _logprob(self, id: int, logits: torch.Tensor) -> TokenLogprob:
        all_ = torch.log_softmax(logits.float(), dim=-1)
        values, ids = all_.topk(min(self.logprobs, len(all_)))
        top = [TokenLogprob(i, self._token(i), v) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
        return TokenLogprob(id, self._token(id), float(all_[id]), tuple(top))

    def _token(self, id: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(id)) if id in self.eos else decoded(self._tokenizer, id)


def decoded(tokenizer: Any, id: int) -> str:
    """The text of one token, its own white space kept."""
    return str(tokenizer.backend_tokenizer.decode([id], skip_special_tokens=False))
