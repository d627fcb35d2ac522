"""Attention as plain products, block by block of queries, on a CPU where :mod:`llavakit.model.flash` cannot be.

torch's fused CPU kernel is made for inference: in training, plain products in blocks that stay in the cache are up to
1.9 times faster in bfloat16, and no slower in float32. A block meets no key that lies behind its last query; weights
are formed again in backward, so that nothing of the size of the scores is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

ROUND = 32
HEADS = 8  # at a time; with the rows below, scores stay within a core's cache
ROWS = {torch.float32: 64, torch.bfloat16: 128, torch.float16: 128}


@dataclass(frozen=True)
class Queries:
    """Which positions of a packed row ask, in order; ``at[i]``: those of segment i, counted from its start."""

    index: torch.Tensor
    at: list[list[int]]

    @classmethod
    def of(cls, index: torch.Tensor, segments: Sequence[int]) -> Queries:
        """``index`` int64[S]: ascending positions in the row of ``segments``."""
        return cls(index, places(index, segments))


def places(index: torch.Tensor, segments: Sequence[int]) -> list[list[int]]:
    """Of every segment those of the ascending positions ``index`` int64[S] that lie in it, counted from its start."""
    at: list[list[int]] = [[] for _ in segments]
    segment, start = 0, 0
    for position in index.tolist():
        while position >= start + segments[segment]:
            start += segments[segment]
            segment += 1
        at[segment].append(position - start)
    return at


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[int],
    scale: float,
    window: int | None = None,
    queries: Queries | None = None,
) -> torch.Tensor:
    """Causal attention within each segment. ``query`` float[H, Q, d]; ``key``, ``value`` float[K, T, d], H a multiple
    of K; Q is T, or the number of ``queries``. Returns float[H, Q, d]."""
    at = [list(range(length)) for length in segments] if queries is None else queries.at
    out: torch.Tensor = _Attend.apply(query, key, value, tuple(segments), at, scale, window)
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        segments: tuple[int, ...],
        at: list[list[int]],
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        rows, keys = _Even.of([len(positions) for positions in at]), _Even.of(segments)
        query, key, value = rows.padded(query * scale), keys.padded(key), keys.padded(value)
        ctx.save_for_backward(query, key, value)
        ctx.given = rows, keys, at, window
        ctx.scale = scale
        out = torch.empty_like(query)
        for block in _blocks(query, key, *ctx.given):
            out[block.q] = (block.weights(query, key) @ value[block.k]).view(block.shape)
        return rows.plain(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        rows, keys, _, _ = ctx.given
        gradient = rows.padded(gradient)
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block in _blocks(query, key, *ctx.given):
            weights = block.weights(query, key)
            given = block.rows(gradient)
            d_value[block.k] += weights.transpose(1, 2) @ given
            d_scores = torch.ops.aten._softmax_backward_data(
                given @ value[block.k].transpose(1, 2), weights, -1, weights.dtype
            )
            d_query[block.q] = (d_scores @ key[block.k]).view(block.shape)
            d_key[block.k] += d_scores.transpose(1, 2) @ block.rows(query)
        return rows.plain(d_query.mul_(ctx.scale)), keys.plain(d_key), keys.plain(d_value), None, None, None, None


@dataclass(frozen=True)
class _Even:
    """Segments with room up to a round number of tokens: oneDNN compiles its kernels for each shape, half a millisecond
    each time, so there must be few. What is in the room is zero, and stands after all that a query sees."""

    counts: Sequence[int]
    starts: list[int]

    @classmethod
    def of(cls, counts: Sequence[int]) -> _Even:
        return cls(counts, [0, *accumulate(_even(count) for count in counts)])

    def padded(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[H, T, d]`` -> ``[H, T with room, d]``, contiguous: else oneDNN copies slice after slice."""
        heads, _, width = tensor.shape
        out = tensor.new_zeros(heads, self.starts[-1], width)
        for start, part in zip(self.starts, tensor.split(list(self.counts), 1), strict=False):
            out[:, start : start + part.shape[1]] = part
        return out

    def plain(self, tensor: torch.Tensor) -> torch.Tensor:
        """The inverse, laid out as ``[T, H, d]``: then the layers around need no copy."""
        heads, _, width = tensor.shape
        out = tensor.new_empty(sum(self.counts), heads, width).transpose(0, 1)
        for start, part in zip(self.starts, out.split(list(self.counts), 1), strict=False):
            part.copy_(tensor[:, start : start + part.shape[1]])
        return out


def _even(count: int) -> int:
    return -(-count // ROUND) * ROUND


@dataclass(frozen=True)
class _Block:
    """Some queries of some heads, and the keys they may see. ``q``, ``k``: index of these in their tensors."""

    q: tuple[slice, slice]
    k: tuple[slice, slice]
    hidden: torch.Tensor
    """``bool[n, k]``: which of the last k keys a query does not see"""
    shape: tuple[int, int, int]

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[H, n, d]`` with the query heads that share a key head one after another: ``[K, H / K * n, d]``."""
        heads = self.k[0].stop - self.k[0].start
        return tensor[self.q].reshape(heads, -1, self.shape[2])

    def weights(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        scores = self.rows(query) @ key[self.k].transpose(1, 2)
        seen_by_all = scores.shape[2] - self.hidden.shape[1]
        by_query = scores.view(-1, self.shape[1], scores.shape[2])
        by_query[..., seen_by_all:].masked_fill_(self.hidden, -torch.inf)
        return torch.softmax(scores, dim=-1)


def _blocks(
    query: torch.Tensor, key: torch.Tensor, rows: _Even, keys: _Even, at: list[list[int]], window: int | None
) -> Iterator[_Block]:
    heads, _, width = query.shape
    repeat = heads // key.shape[0]
    together, size = max(1, HEADS // repeat), ROWS.get(query.dtype, 64)
    for first_query, first_key, positions in zip(rows.starts, keys.starts, at, strict=False):
        # Queries in the room see what the last one sees.
        filled = [*positions, *positions[-1:] * (_even(len(positions)) - len(positions))]
        for start in range(0, len(filled), size):
            some = filled[start : start + size]
            low = 0 if window is None else max(0, some[0] - window + 1) // ROUND * ROUND
            high = _even(some[-1] + 1)
            hidden = _hidden(torch.tensor(some), low, high, window)
            q = slice(first_query + start, first_query + start + len(some))
            k = slice(first_key + low, first_key + high)
            for head in range(0, key.shape[0], together):
                last = min(head + together, key.shape[0])
                shape = ((last - head) * repeat, len(some), width)
                yield _Block((slice(head * repeat, last * repeat), q), (slice(head, last), k), hidden, shape)


def _hidden(at: torch.Tensor, low: int, high: int, window: int | None) -> torch.Tensor:
    """What each query may not see of the keys up to ``high``, from the first on that not all of them see."""
    keys = torch.arange(int(at[0]) + 1 if window is None else low, high)
    hidden = keys > at[:, None]
    return hidden if window is None else hidden | (keys <= at[:, None] - window)
