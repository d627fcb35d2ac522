"""Matrices of a decoder, joined where they read the same input, laid out for the processor's kernels once.

oneDNN reorders a matrix into blocks at every call unless it is given one that was reordered before; for a few tokens
that is half of the time. The reordered copy is oneDNN's own and cannot be read back, so the original is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def can_pack(tensor: torch.Tensor) -> bool:
    """Whether this build of torch has the prepacked kernels for such a matrix."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (tensor.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class Linear:
    """``float[T, in]`` -> ``float[T, out]``: one ``nn.Linear``, or several over one input side by side."""

    def __init__(self, *parts: nn.Linear, pack: bool) -> None:
        weights = [part.weight.detach() for part in parts]
        self.weight: Any = weights[0] if len(weights) == 1 else torch.cat(weights)
        biases = [part.bias for part in parts]
        self.bias: torch.Tensor | None = None
        if any(bias is not None for bias in biases):
            self.bias = torch.cat(
                [
                    weight.new_zeros(len(weight)) if bias is None else bias.detach()
                    for weight, bias in zip(weights, biases, strict=True)
                ]
            )
        self.packed = pack
        if pack:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._pointwise(x, "none") if self.packed else nn.functional.linear(x, self.weight, self.bias)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """``silu(self(x))``."""
        return self._pointwise(x, "swish") if self.packed else nn.functional.silu(self(x))

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) + other``."""
        return self._binary(x, other, "add") if self.packed else self(x) + other

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) * other``."""
        return self._binary(x, other, "mul") if self.packed else self(x) * other

    def _pointwise(self, x: torch.Tensor, then: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, then, [], "")
        return out

    def _binary(self, x: torch.Tensor, other: torch.Tensor, then: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, other, self.weight, self.bias, then)
        return out
