"""Causal attention over a packed row: every sequence attends to itself alone.

transformers isolates packed sequences by a 4-D mask over the whole row (slower than padding), and only when no
attention mask and no cache are given; otherwise samples leak into each other silently. Here each segment is attended
by itself: no mask exists that could be wrong, and no work is done across sequences.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

NAME = "llavakit_packed"


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
    repeats = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts = []
    for q, k, v in zip(query.split(segments, 2), key.split(segments, 2), value.split(segments, 2), strict=True):
        seen = _within(q.shape[2], sliding_window, q.device)
        if softcap is not None:
            parts.append(
                _capped(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), seen, scale, softcap)
            )
            continue
        part = nn.functional.scaled_dot_product_attention(
            q, k, v, seen, is_causal=seen is None, dropout_p=dropout, scale=scale, enable_gqa=repeats > 1
        )
        parts.append(part)
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _within(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """``bool[length, length]``: who sees whom within ``window``; None where that is all who came before."""
    if window is None or length <= window:
        return None
    at = torch.arange(length, device=device)
    back = at[:, None] - at
    return (back >= 0) & (back < window)


def _capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None, scale: float, softcap: float
) -> torch.Tensor:
    """Causal attention whose scores are bent by a tanh, which no fused kernel of torch can."""
    scores = torch.tanh(q @ k.transpose(-1, -2) * (scale / softcap)) * softcap
    if seen is None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    weights = torch.softmax(scores.masked_fill(~seen, float("-inf")).float(), dim=-1)
    return weights.to(v.dtype) @ v


@contextlib.contextmanager
def packed(language_model: nn.Module) -> Iterator[None]:
    """Within the block, ``language_model`` attends by segments; after it, as before."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    config: Any = language_model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
