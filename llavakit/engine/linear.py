"""Matrices of a decoder, joined where they read the same input, laid out for the processor's kernels once.

oneDNN reorders a matrix into blocks at every call unless it is given one that was reordered before; for a few tokens
that is half of the time. The reordered copy is oneDNN's own and cannot be read back, so the original is kept. In
float32 that serves for one token and for many, where the other library (MKL) is the faster one.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

FEW = range(2, 257)
SMALL = (1, 2, 4, 8, 16, 24, 32)


def can_pack(tensor: torch.Tensor) -> bool:
    """Whether this build of torch has the prepacked kernels for such a matrix."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (tensor.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def even(count: int, dtype: torch.dtype) -> int:
    """So many tokens, or somewhat more, that oneDNN need not compile its kernels anew for every number of them: that
    takes milliseconds. In float32 few shapes of many tokens are worth the sums that padding adds."""
    if count <= SMALL[-1]:
        return next(size for size in SMALL if size >= count)
    return count if dtype == torch.float32 or count > FEW[-1] else -(-count // 32) * 32


class Linear:
    """``float[T, in]`` -> ``float[T, out]``: one ``nn.Linear``, or several over one input side by side.

    Layers whose weights are no plain tensors (quantised ones, adapters) are called as they are.
    """

    def __init__(self, *parts: nn.Linear, pack: bool) -> None:
        self.parts = parts
        self.plain = all(type(part) is nn.Linear and type(part.weight.data) is torch.Tensor for part in parts)
        self.sizes = range(0)
        """numbers of tokens for which the reordered copy is used"""
        self.weight: Any = None
        self.blocks: Any = None
        self.bias: torch.Tensor | None = None
        if not self.plain:
            return
        self.weight = parts[0].weight.detach() if len(parts) == 1 else torch.cat([part.weight for part in parts])
        if any(part.bias is not None for part in parts):
            none = [self.weight.new_zeros(part.out_features) for part in parts]
            self.bias = torch.cat([zero if p.bias is None else p.bias for p, zero in zip(parts, none, strict=True)])
        if len(parts) > 1:
            # The model's own matrices become views of the joined one: no memory is taken twice.
            for part, view in zip(parts, self.weight.split([part.out_features for part in parts]), strict=True):
                part.weight.data = view
        if pack:
            self.blocks = torch.ops.mkldnn._reorder_linear_weight(self.weight)
            self.sizes = FEW if self.weight.dtype == torch.float32 else range(sys.maxsize)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] in self.sizes:
            return self._pointwise(x, "none")
        if self.plain:
            return nn.functional.linear(x, self.weight, self.bias)
        return torch.cat([part(x) for part in self.parts], dim=-1)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """``silu(self(x))``."""
        return self._pointwise(x, "swish") if x.shape[0] in self.sizes else nn.functional.silu(self(x), inplace=True)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) + other``."""
        return self._binary(x, other, "add") if x.shape[0] in self.sizes else self(x).add_(other)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) * other``."""
        return self._binary(x, other, "mul") if x.shape[0] in self.sizes else self(x).mul_(other)

    def _pointwise(self, x: torch.Tensor, then: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.blocks, self.bias, then, [], "")
        return out

    def _binary(self, x: torch.Tensor, other: torch.Tensor, then: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.blocks, self.bias, then)
        return out
