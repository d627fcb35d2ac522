"""Causal attention over a packed row: every sequence attends to itself alone.

transformers isolates packed sequences by a 4-D mask over the whole row (slower than padding), and only when no
attention mask and no cache are given; otherwise samples leak into each other silently. Here each segment is attended
by itself: no mask exists that could be wrong, and no work is done across sequences.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from llavakit.model import blocks, flash

NAME, WHOLE = "llavakit_packed", "llavakit_whole"


# What language models of transformers also hand to their attention, and what does not change it.
HARMLESS = {"position_ids", "use_cache", "is_causal", "cache_position", "past_key_values", "position_embeddings"}


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: list[int],
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. query ``float[1, heads, T, d]``; sum of ``segments`` is T.

    ``sliding_window``: how many tokens, itself among them, a token sees (Mistral, Gemma). ``softcap``: bound of the
    scores (Gemma 2). Returns ``float[1, T, heads, d]``. Raises ValueError for whatever else would change the scores.
    """
    unknown = sorted(name for name, given in others.items() if given is not None and name not in HARMLESS)
    if attention_mask is not None or unknown:
        raise ValueError(f"packed attention takes segment lengths, not {', '.join(unknown) or 'a mask'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not dropout and softcap is None:
        out = attend(query[0], key[0], value[0], segments, scale, sliding_window)
        return out.transpose(0, 1)[None], None
    repeats = query.shape[1] // key.shape[1]
    parts = []
    for q, k, v in zip(query.split(segments, 2), key.split(segments, 2), value.split(segments, 2), strict=True):
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        seen = _within(q.shape[2], sliding_window, q.device)
        parts.append(_plain(q, k, v, seen, scale, dropout, softcap))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    segments: list[int],
    scale: float,
    window: int | None = None,
    queries: blocks.Queries | None = None,
) -> torch.Tensor:
    """Causal attention within each segment: on a CPU by our own kernel or in blocks, on a GPU by torch's for rows of
    unequal length where it has one. ``q`` float[H, T, d], or [H, S, d] of S ``queries``; ``k``, ``v`` float[K, T, d];
    returns as q."""
    kind = q.device.type
    if torch.is_autocast_enabled(kind):
        q, k, v = (t.to(torch.get_autocast_dtype(kind)) for t in (q, k, v))
    if flash.known(q):
        return flash.attend(q, k, v, segments, scale, window, queries)
    # A plan's tensors have no storage that blocks could be cut by, and stand for a GPU's.
    if kind == "cpu" and type(q) is torch.Tensor:
        return blocks.attend(q, k, v, segments, scale, window, queries)
    return attend_by_kernels(q, k, v, segments, scale, window, queries)


def attend_by_kernels(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    segments: list[int],
    scale: float,
    window: int | None,
    queries: blocks.Queries | None,
) -> torch.Tensor:
    """The same, by torch's fused kernels."""
    if queries is not None:
        return _some(q, k, v, segments, scale, window, queries)
    if q.is_cuda and q.dtype != torch.float32 and (rows := _rows_of_unequal_length()) is not None:
        ends, longest = _ends(tuple(segments), q.device), max(segments)
        limits = (-1 if window is None else window - 1, 0)
        given = [t.transpose(0, 1) for t in (q, k, v)]
        out: torch.Tensor = rows(
            *given, ends, ends, longest, longest, scale=scale, window_size=limits, enable_gqa=len(q) != len(k)
        )
        return out.transpose(0, 1)
    parts = [
        _fused(q, k, v, _within(q.shape[1], window, q.device), scale)
        for q, k, v in zip(q.split(segments, 1), k.split(segments, 1), v.split(segments, 1), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _some(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    segments: list[int],
    scale: float,
    window: int | None,
    queries: blocks.Queries,
) -> torch.Tensor:
    """Queries at some positions only, on a GPU: a mask a segment."""
    parts = []
    counts = [len(at) for at in queries.at]
    for at, q_, k_, v_ in zip(queries.at, q.split(counts, 1), k.split(segments, 1), v.split(segments, 1), strict=True):
        if at:
            back = torch.tensor(at, device=q.device)[:, None] - torch.arange(k_.shape[1], device=q.device)
            parts.append(_fused(q_, k_, v_, (back >= 0) if window is None else (back >= 0) & (back < window), scale))
    return torch.cat(parts, dim=1)


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None, scale: float) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(
        q[None], k[None], v[None], seen, is_causal=seen is None, scale=scale, enable_gqa=len(q) != len(k)
    )[0]


@functools.cache
def _rows_of_unequal_length() -> Any:
    """torch's kernel for packed rows; None in a build without it, or with an older signature."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= known.keys() else None


@functools.lru_cache(maxsize=4)
def _ends(segments: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where segments begin and end, int32[n + 1]; every layer of a row asks for the same."""
    return torch.tensor([0, *accumulate(segments)], dtype=torch.int32, device=device)


def segmented(config: Any) -> bool:
    """Whether a language model is within :func:`packed`."""
    return bool(config._attn_implementation == NAME)


def _within(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """``bool[length, length]``: who sees whom within ``window``; None where that is all who came before."""
    if window is None or length <= window:
        return None
    at = torch.arange(length, device=device)
    back = at[:, None] - at
    return (back >= 0) & (back < window)


def _plain(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    seen: torch.Tensor | None,
    scale: float,
    dropout: float,
    softcap: float | None,
) -> torch.Tensor:
    """Causal attention with dropout, or with scores that are bent by a tanh, which no fused kernel of torch can."""
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(
            q, k, v, seen, is_causal=seen is None, dropout_p=dropout, scale=scale
        )
    scores = torch.tanh(q @ k.transpose(-1, -2) * (scale / softcap)) * softcap
    if seen is None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    weights = torch.softmax(scores.masked_fill(~seen, float("-inf")).float(), dim=-1)
    return nn.functional.dropout(weights, dropout).to(v.dtype) @ v


def whole_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: every token sees every other, as in a vision tower, on a CPU by our own
    kernel. Without it plain products: in bfloat16 torch's fused kernel is several times slower, backward above all.

    ``float[n, heads, T, d]`` -> ``float[n, T, heads, d]``. Raises ValueError for a mask and for dropout.
    """
    if attention_mask is not None or dropout:
        raise ValueError("whole attention knows neither mask nor dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if flash.known(query):
        return flash.attend_whole(query, key, value, scale), None
    if query.dtype == torch.float32:
        return nn.functional.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2), None
    return (torch.softmax((query * scale) @ key.transpose(2, 3), dim=-1) @ value).transpose(1, 2), None


def packed(language_model: Any) -> contextlib.AbstractContextManager[None]:
    """Within the block, ``language_model`` attends by segments; after it, as before."""
    return _attending(language_model, NAME)


def whole(tower: Any, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Within the block, ``tower`` attends by :func:`whole_attention`, if that is the faster on ``device``."""
    dropout = any(getattr(tower.config, f"attention_{name}", 0) for name in ("dropout", "probs_dropout_prob"))
    return _attending(tower, WHOLE) if device.type == "cpu" and not dropout else contextlib.nullcontext()


@contextlib.contextmanager
def _attending(model: Any, how: str) -> Iterator[None]:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionInterface.register(WHOLE, whole_attention)
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = how
    try:
        yield
    finally:
        config._attn_implementation = before
