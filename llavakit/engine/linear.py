"""Matrices of a decoder, joined where they read the same input, laid out for the processor's kernels once.

oneDNN reorders a matrix into blocks at every call unless it is given one that was reordered before; for a few tokens
that is half of the time. The reordered copy is oneDNN's own and cannot be read back, so the model keeps the original.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# oneDNN compiles its kernels for each number of tokens, which takes milliseconds; so only some numbers occur. Those in
# between cost no more: the time goes into reading the matrix. In float32 even four tokens take less than one or two.
SMALL = (1, 4, 6, 8, 12, 16, 24, 32)
FEW = 256


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
    """So many tokens, or somewhat more, that the kernels are there already and fast."""
    if count == 1 and dtype == torch.float32:
        return SMALL[1]
    if count <= SMALL[-1]:
        return next(size for size in SMALL if size >= count)
    return count if count > FEW else -(-count // 32) * 32


class Linear:
    """``float[T, in]`` -> ``float[T, out]``: one ``nn.Linear``, or several over one input side by side.

    Layers whose weights are no plain tensors (quantised ones, adapters) are called as they are.
    """

    def __init__(self, *parts: nn.Linear, pack: bool) -> None:
        self.parts = parts
        self.plain = all(type(part) is nn.Linear and type(part.weight.data) is torch.Tensor for part in parts)
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

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.blocks is not None:
            return self._pointwise(x, "none")
        if self.plain:
            return nn.functional.linear(x, self.weight, self.bias)
        return torch.cat([part(x) for part in self.parts], dim=-1)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """``silu(self(x))``."""
        return self._pointwise(x, "swish") if self.blocks is not None else nn.functional.silu(self(x), inplace=True)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) + other``."""
        return self._binary(x, other, "add") if self.blocks is not None else self(x).add_(other)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) * other``."""
        return self._binary(x, other, "mul") if self.blocks is not None else self(x).mul_(other)

    def _pointwise(self, x: torch.Tensor, then: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.blocks, self.bias, then, [], "")
        return out

    def _binary(self, x: torch.Tensor, other: torch.Tensor, then: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.blocks, self.bias, then)
        return out
