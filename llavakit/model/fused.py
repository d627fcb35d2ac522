"""Steps between the matrix products, each one autograd node that keeps little and goes over memory few times.

For a CPU, where transformers' own are chains of passes. Within autocast they hand on what the next product takes. To
torch.compile, which joins passes by itself, they are the plain formulas.
"""

from __future__ import annotations

from typing import Any

import torch


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """What matrix products compute in, given ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / rms(x) * weight``, float[..., H], for the next matrix product."""
    if torch.compiler.is_compiling():
        wide = x.float()
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return (unit * weight).to(product_dtype(x))
    out: torch.Tensor = _RmsNorm.apply(x, weight, eps, product_dtype(x))
    return out


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        unit = x * inverse
        weighed = gradient * unit
        d_weight = weighed.flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, d_weight, None, None
        # mean over H of gradient * weight * unit, as a product of matrices
        along = (weighed @ weight.to(weighed.dtype)).div_(-x.shape[-1]).unsqueeze(-1)
        d_x = torch.mul(gradient, weight, out=weighed) if weighed.dtype == weight.dtype else gradient * weight
        return d_x.addcmul_(unit, along.to(unit.dtype)).mul_(inverse).to(x.dtype), d_weight, None, None


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions. ``x`` float[T, heads, d]; ``cos``, ``sin`` float[T, 1, d / 2] of the same type."""
    if torch.compiler.is_compiling():
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    out: torch.Tensor = _Rotate.apply(x, cos, sin)
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, sin, -1), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, way: int) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = x.shape[-1] // 2
    (a, b), (left, right) = x.split(half, -1), out.split(half, -1)
    torch.mul(a, cos, out=left)
    left.addcmul_(b, sin, value=-way)
    torch.mul(b, cos, out=right)
    right.addcmul_(a, sin, value=way)
    return out


def silu_times(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up``; keeps these two alone."""
    if torch.compiler.is_compiling():
        return torch.nn.functional.silu(gate) * up
    out: torch.Tensor = _SiluTimes.apply(gate, up)
    return out


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        d_up = torch.nn.functional.silu(gate).mul_(gradient)
        return torch.ops.aten.silu_backward(gradient * up, gate), d_up


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of rows of float[S, V], float32[S]. Keeps the gradient, in the type of ``logits``, and nothing else of that size;
    the softmax is float32."""
    out: torch.Tensor = _CrossEntropy.apply(logits, targets)
    return out


class _CrossEntropy(torch.autograd.Function):
    ROWS = 64  # at a time: their float32 logits stay in the cache

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        losses = logits.new_empty(len(logits), dtype=torch.float32)
        rows = _CrossEntropy.ROWS if logits.device.type == "cpu" else len(logits) or 1
        for start in range(0, len(logits), rows):
            some = slice(start, start + rows)
            chosen = targets[some, None]
            log = torch.log_softmax(logits[some], -1, dtype=torch.float32)
            losses[some] = log.gather(1, chosen).neg_()[:, 0]
            if gradient is not None:
                gradient[some] = log.exp_().scatter_add_(1, chosen, log.new_full(chosen.shape, -1.0))
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (saved,) = ctx.saved_tensors
        return saved * gradient.to(saved.dtype)[:, None], None
