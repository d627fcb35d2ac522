"""Whose loss it was: sums over the supervised tokens of every example, and of every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llavakit.base.dist import all_sum
from llavakit.model.llava import Batch, Member


@dataclass(frozen=True)
class Sum:
    """Summed loss over ``tokens`` supervised tokens."""

    loss: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.loss / max(1, self.tokens)


class Ledger:
    """Losses of the rows of a step, or of several. Nothing waits for the device until a sum is asked for."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._sums: list[torch.Tensor] = []

    def add(self, row: Batch, losses: Sequence[torch.Tensor]) -> None:
        """The losses of a row's supervised tokens, as ``Llava.forward`` gives them to ``by_token``. A row that names no
        members does not count."""
        if not row.members:
            return
        ends = torch.tensor(row.segments).cumsum(0).to(row.predict.device)
        owner = torch.searchsorted(ends, row.predict, right=True)
        sums = torch.zeros(2, len(row.members), device=row.predict.device)
        sums[0].index_add_(0, owner, torch.cat(list(losses)).float())
        sums[1].index_add_(0, owner, torch.ones_like(owner, dtype=torch.float32))
        self.members += row.members
        self._sums.append(sums)

    def by_example(self) -> list[tuple[Member, Sum]]:
        """This process's examples, in the order of the rows."""
        if not self._sums:
            return []
        losses, tokens = torch.cat(self._sums, dim=1).tolist()
        return [(m, Sum(loss, int(n))) for m, loss, n in zip(self.members, losses, tokens, strict=True)]

    def by_source(self, names: Sequence[str]) -> dict[str, Sum]:
        """Sums over the examples of all ranks, for those of ``names`` that have any; the same names on every rank."""
        found = {name: [0.0, 0.0] for name in names}
        for member, one in self.by_example():
            found[member.source][0] += one.loss
            found[member.source][1] += one.tokens
        total = torch.tensor(list(found.values()), dtype=torch.float64)
        sums = zip(names, all_sum(total).tolist(), strict=True)
        return {name: Sum(loss, int(tokens)) for name, (loss, tokens) in sums if tokens}
