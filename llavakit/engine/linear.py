"""Matrices of a decoder, joined where they read the same input, laid out for a processor's kernels once.

Our own kernel (``products.h``) reads a matrix in panels. Where it cannot be had, oneDNN reorders a matrix into blocks
at every call unless it is given one that was reordered before; for a few tokens that is half of the time. The model
keeps its own matrix beside either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import torch
from torch import nn

from llavakit.engine.kernel import Kernel, Matrix, kernel

# oneDNN compiles its kernels for each number of tokens, which takes milliseconds; so only some numbers occur. Those in
# between cost no more: the time goes into reading the matrix. In float32 even four tokens take less than one or two.
SMALL = (1, 4, 6, 8, 12, 16, 24, 32)
FEW = 256

Then = Literal["nothing", "silu", "plus", "times"]
"""In the order of ``products.h``."""


class Packed(Protocol):
    """A matrix and its bias as a processor's kernels want them."""

    def __call__(self, x: torch.Tensor, then: Then, other: torch.Tensor | None) -> torch.Tensor:
        """``float[T, in]`` -> ``float[T, out]``, and what is done to it ``then``."""

    def even(self, count: int) -> int:
        """So many tokens, or somewhat more, that the kernels are there already and fast."""


Packing = Callable[[torch.Tensor, torch.Tensor | None], Packed | None]
"""Of a matrix ``[out, in]`` and its bias; None where it is best left as it is."""


def packing(weight: torch.Tensor, width: int) -> Packing | None:
    """How matrices like this one are packed in a decoder with heads of ``width``, or None where they are not."""
    run = kernel(weight.device, weight.dtype, width)
    if run is not None and run.lay_out(weight.new_zeros(1, 2)) is not None:
        return lambda matrix, bias: Panels.of(run, matrix, bias)
    return Blocks if has_blocks(weight) else None


class Panels:
    """For our own kernel, for which any number of tokens is even."""

    def __init__(self, run: Kernel, panels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.run, self.held, self.dtype = run, (panels, bias), weight.dtype
        outputs, inputs = weight.shape
        self.matrix = Matrix(panels.data_ptr(), None if bias is None else bias.data_ptr(), inputs, outputs)

    @classmethod
    def of(cls, run: Kernel, weight: torch.Tensor, bias: torch.Tensor | None) -> Panels | None:
        panels = run.lay_out(weight)
        if panels is None or (bias is not None and bias.dtype != weight.dtype):
            return None
        return cls(run, panels, weight, bias)

    def __call__(self, x: torch.Tensor, then: Then, other: torch.Tensor | None) -> torch.Tensor:
        if x.dtype != self.dtype or (other is not None and other.dtype != self.dtype):
            raise TypeError(f"a product of {x.dtype} with a matrix of {self.dtype}")
        return self.run.multiply(self.matrix, x, get_args(Then).index(then), other)

    def even(self, count: int) -> int:
        return count


class Blocks:
    """For oneDNN. The copy is its own and cannot be read back."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.dtype, self.bias = weight.dtype, bias
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(weight)

    def __call__(self, x: torch.Tensor, then: Then, other: torch.Tensor | None) -> torch.Tensor:
        out: torch.Tensor
        run = torch.ops.mkldnn._linear_pointwise
        if other is None:
            out = run.default(x, self.blocks, self.bias, {"nothing": "none", "silu": "swish"}[then], [], "")
        else:
            out = run.binary(x, other, self.blocks, self.bias, {"plus": "add", "times": "mul"}[then])
        return out

    def even(self, count: int) -> int:
        if count == 1 and self.dtype == torch.float32:
            return SMALL[1]
        if count <= SMALL[-1]:
            return next(size for size in SMALL if size >= count)
        return count if count > FEW else -(-count // 32) * 32


def has_blocks(tensor: torch.Tensor) -> bool:
    """Whether this build of torch has oneDNN's kernels for such a matrix."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (tensor.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class Linear:
    """``float[T, in]`` -> ``float[T, out]``: one ``nn.Linear``, or several over one input side by side.

    Layers whose weights are no plain tensors (quantised ones, adapters) are called as they are.
    """

    def __init__(self, *parts: nn.Linear, pack: Packing | None) -> None:
        self.parts = parts
        self.plain = all(type(part) is nn.Linear and type(part.weight.data) is torch.Tensor for part in parts)
        self.weight: Any = None
        self.packed: Packed | None = None
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
        if pack is not None:
            self.packed = pack(self.weight, self.bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is not None:
            return self.packed(x, "nothing", None)
        if self.plain:
            return nn.functional.linear(x, self.weight, self.bias)
        return torch.cat([part(x) for part in self.parts], dim=-1)

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """``float[..., in]`` -> ``float[..., out]``."""
        return self(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """``silu(self(x))``."""
        return nn.functional.silu(self(x), inplace=True) if self.packed is None else self.packed(x, "silu", None)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) + other``."""
        return self(x).add_(other) if self.packed is None else self.packed(x, "plus", other)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``self(x) * other``."""
        return self(x).mul_(other) if self.packed is None else self.packed(x, "times", other)


class Packer:
    """Linear layers of some modules, packed. Within a ``with`` they compute so; outside they are as they were, and may
    be trained (not what is packed, which keeps the weights of when it was made)."""

    def __init__(self, pack: Packing, *modules: nn.Module) -> None:
        layers = [layer for module in modules for layer in module.modules() if type(layer) is nn.Linear]
        # A forward that somebody else put there is left alone.
        linears = [(layer, Linear(layer, pack=pack)) for layer in layers if "forward" not in vars(layer)]
        self.linears = [(layer, linear) for layer, linear in linears if linear.packed is not None]

    def __enter__(self) -> None:
        for layer, linear in self.linears:
            vars(layer)["forward"] = linear.flat

    def __exit__(self, *reason: object) -> None:
        for layer, _ in self.linears:
            del vars(layer)["forward"]
