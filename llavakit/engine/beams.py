"""Beam search, step by step, with the results of transformers' (``early_stopping=False``)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from llavakit.engine.sample import Decoding, repelled


@dataclass(frozen=True)
class Next:
    """How the search goes on: beam i continues beam ``parents[i]`` by token ``ids[i]``."""

    parents: list[int]
    ids: list[int]


class Beams:
    """The search for one answer. :meth:`step` takes logits until it returns None; then :attr:`best` is the answer."""

    def __init__(
        self,
        how: Decoding,
        prompt: Collection[int],
        eos: Collection[int],
        room: int,
        stops: Callable[[list[int]], bool],
    ) -> None:
        """``room``: the most tokens of an answer; ``stops``: whether an answer so far ends in a stop string."""
        self.how, self.prompt, self.eos, self.room, self.stops = how, frozenset(prompt), frozenset(eos), room, stops
        self.running: list[list[int]] = [[]]
        self.scores = torch.zeros(1)
        self.finished: list[tuple[float, list[int]]] = []
        self.best: list[int] = []

    def step(self, logits: torch.Tensor) -> Next | None:
        """Logits ``float[beams, V]``: of one beam at first, then of ``num_beams``."""
        how, count = self.how, self.how.num_beams
        scores = torch.log_softmax(logits.float(), dim=-1).cpu()
        if how.repetition_penalty != 1:
            pairs = zip(scores, self.running, strict=True)
            scores = torch.stack([repelled(row, self.prompt | set(ids), how.repetition_penalty) for row, ids in pairs])
        total = (scores + self.scores[:, None]).flatten()
        # Every end of sequence may take one of the best; so many more are looked at that enough remain to go on.
        top, at = total.topk(min(max(2, 1 + len(self.eos)) * count, len(total)))
        parents, tokens = (at // logits.shape[-1]).tolist(), (at % logits.shape[-1]).tolist()
        written = [[*self.running[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        length = len(written[0])
        ends = [ids[-1] in self.eos or length >= self.room or self.stops(ids) for ids in written]
        for score, ids, end in list(zip(top.tolist(), written, ends, strict=True))[:count]:
            if end:
                self.finished.append((score / length**how.length_penalty, ids))
        self.finished = sorted(self.finished, key=lambda pair: -pair[0])[:count]
        open_ = [i for i, end in enumerate(ends) if not end][:count]
        if not open_ or self._hopeless(float(top[open_[0]]), length):
            self.best = self.finished[0][1]
            return None
        self.running = [written[i] for i in open_]
        self.scores = top[open_]
        return Next([parents[i] for i in open_], [tokens[i] for i in open_])

    def _hopeless(self, score: float, length: int) -> bool:
        """Whether no running beam can still beat a finished one, as transformers estimates it."""
        if len(self.finished) < self.how.num_beams:
            return False
        return score / length**self.how.length_penalty <= self.finished[-1][0]
