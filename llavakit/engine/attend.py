"""Attention in parts: a query's keys lie in several places, and the parts are merged by their log-sum-exp.

A shared prefix is attended by all queries that share it in one product; what each row has of its own, apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llavakit.model import flash

Part = tuple[torch.Tensor, torch.Tensor]
"""Attended values ``float[B, H, Q, d]`` and the log-sum-exp of their scores ``float32[B, H, Q]``."""


def part(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> Part:
    """Attention of ``q [B, H, Q, d]`` over ``k, v [B, H, K, d]`` and its log-sum-exp; ``mask`` is added to scores."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(
            q, k, v, 0.0, causal, attn_mask=mask, scale=scale
        )
    # In float32: a log-sum-exp of 8 bits would weigh the parts wrongly.
    scores = torch.matmul(q.float() * scale, k.float().transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    if causal:
        hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    lse = scores.logsumexp(-1)
    return torch.matmul((scores - lse[..., None]).exp().to(v.dtype), v), lse


@dataclass(frozen=True, eq=False)
class Shared:
    """Keys and values of tokens that several rows may share, ``float[layers, H, n, d]``."""

    keys: torch.Tensor
    values: torch.Tensor

    def __len__(self) -> int:
        return self.keys.shape[2]

    @property
    def bytes(self) -> int:
        return 2 * self.keys.numel() * self.keys.element_size()

    def first(self, count: int) -> Shared:
        """Its first tokens; the same memory."""
        return self if count == len(self) else Shared(self.keys[:, :, :count], self.values[:, :, :count])


Chain = tuple[Shared, ...]
"""What a row shares, in order: it sees all of it before its own tokens."""


def joined(chain: Chain) -> Shared:
    """Consecutive parts as one; memory of its own."""
    return Shared(torch.cat([part.keys for part in chain], 2), torch.cat([part.values for part in chain], 2))


def length(chain: Chain) -> int:
    return sum(len(shared) for shared in chain)


Group = tuple[Shared, torch.Tensor | None]
"""A shared part and the query tokens that see it, None for all."""


class Sharing:
    """Which of T query tokens see which shared parts. Built once a forward pass, used in every layer."""

    def __init__(self, chains: Sequence[Chain], counts: Sequence[int], device: torch.device) -> None:
        """``counts``: how many of the query tokens, which lie row after row, belong to each row."""
        self.total = sum(counts)
        self.levels: list[list[Group]] = []
        starts = [sum(counts[:row]) for row in range(len(counts))]
        for level in range(max(map(len, chains), default=0)):
            members: dict[tuple[int, int], tuple[Shared, list[int]]] = {}
            for row, chain in enumerate(chains):
                if level < len(chain):
                    shared = chain[level]
                    # Views of one tensor are one group.
                    key = (shared.keys.data_ptr(), len(shared))
                    members.setdefault(key, (shared, []))[1].extend(range(starts[row], starts[row] + counts[row]))
            self.levels.append(
                [
                    (shared, None if len(tokens) == self.total else torch.tensor(tokens, device=device))
                    for shared, tokens in members.values()
                ]
            )

    def __call__(self, layer: int, q: torch.Tensor, own: torch.Tensor, lse: torch.Tensor, scale: float) -> torch.Tensor:
        """Adds the shared parts to each token's own. ``q, own [T, H, R, d]``, ``lse [T, H, R]``; R queries share a
        key head. Returns ``[T, H, R, d]``."""
        for level in self.levels:
            out, more = self._level(level, layer, q, scale)
            own = torch.lerp(out, own, torch.sigmoid(lse - more)[..., None].to(own.dtype))
            if level is not self.levels[-1]:
                lse = torch.logaddexp(lse, more)
        return own

    def _level(self, level: list[Group], layer: int, q: torch.Tensor, scale: float) -> Part:
        if len(level) == 1 and level[0][1] is None:
            return self._group(level[0][0], layer, q, scale)
        out, lse = torch.zeros_like(q), q.new_full(q.shape[:-1], -torch.inf, dtype=torch.float32)
        for shared, tokens in level:
            assert tokens is not None
            out[tokens], lse[tokens] = self._group(shared, layer, q[tokens], scale)
        return out, lse

    def _group(self, shared: Shared, layer: int, q: torch.Tensor, scale: float) -> Part:
        tokens, heads, repeat, width = q.shape
        if flash.known(q):
            rows = q.flatten(1, 2).transpose(0, 1)
            found = flash.weighed(rows, shared.keys[layer], shared.values[layer], None, scale)
            out, lse = (x.transpose(0, 1).unflatten(1, (heads, repeat)) for x in found)
            return out, lse
        flat = q.transpose(0, 1).reshape(1, heads, tokens * repeat, width)
        out, lse = part(flat, shared.keys[layer][None], shared.values[layer][None], scale)
        shape: Any = (heads, tokens, repeat)
        return out.reshape(*shape, width).transpose(0, 1), lse.reshape(shape).transpose(0, 1)
