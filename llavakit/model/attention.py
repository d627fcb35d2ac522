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
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. query ``float[1, heads, T, d]``; sum of ``segments`` is T.

    Returns ``float[1, T, heads, d]``.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes segment lengths, not a mask")
    grouped = query.shape[1] != key.shape[1]
    parts = [
        nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=grouped
        )
        for q, k, v in zip(query.split(segments, 2), key.split(segments, 2), value.split(segments, 2), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


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
