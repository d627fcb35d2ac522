"""A layer of a decoder built like Llama's, over transformers' module: its matrices joined and packed, its norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llavakit.engine.kernel import kernel
from llavakit.engine.linear import Linear, Packing
from llavakit.engine.rows import OneEach, View

# From so many tokens on, a pass over memory costs more than a call: the same sums in fewer passes.
MANY = 64


class Block:
    """One layer. Queries, keys and values come of one matrix; the rest is fused with what follows it."""

    def __init__(self, block: Any, pack: Packing | None, last: bool) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.width = attention.head_dim
        self.scale = attention.scaling
        self.heads = attention.q_proj.out_features // self.width
        self.groups = attention.k_proj.out_features // self.width
        # Of a prompt's tokens the last layer asks for the last one only.
        self.q = Linear(attention.q_proj, pack=pack) if last else None
        parts = [attention.k_proj, attention.v_proj]
        self.qkv = Linear(*parts, pack=pack) if last else Linear(attention.q_proj, *parts, pack=pack)
        self.q_norm: Any = getattr(attention, "q_norm", None)
        self.k_norm: Any = getattr(attention, "k_norm", None)
        self.out = Linear(attention.o_proj, pack=pack)
        self.gate, self.up = Linear(mlp.gate_proj, pack=pack), Linear(mlp.up_proj, pack=pack)
        self.down = Linear(mlp.down_proj, pack=pack)
        self.act = mlp.act_fn
        self.silu = isinstance(mlp.act_fn, nn.SiLU) or type(mlp.act_fn).__name__ == "SiLUActivation"
        self.norm = type(block.input_layernorm)
        self.before = Norm(block.input_layernorm, self.width)
        self.between = Norm(block.post_attention_layernorm, self.width)

    def linears(self) -> list[Linear]:
        return [x for x in (self.q, self.qkv, self.out, self.gate, self.up, self.down) if x is not None]

    def __call__(self, number: int, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, view: View) -> torch.Tensor:
        """``x``: float[T or more, hidden]; what is beyond T, the length of ``cos``, is padding."""
        normed = self.before(x)
        joined = self.qkv(normed) if self.q is None else torch.cat([self.q(normed), self.qkv(normed)], dim=-1)
        joined = joined.view(len(x), -1, self.width)
        if self.q_norm is None and view.native is not None:
            return self._after(x, view.native.turned(number, joined, cos, sin, self.scale))
        joined = joined[: len(cos)]
        q, k, v = joined.split([self.heads, self.groups, self.groups], dim=1)
        if self.q_norm is None:
            q, k = turned(joined[:, : self.heads + self.groups], cos, sin).split([self.heads, self.groups], dim=1)
        else:
            q, k = turned(self.q_norm(q), cos, sin), turned(self.k_norm(k), cos, sin)
        view.store(number, k, v)
        return self._after(x, view.attend(number, q, self.scale))

    def store(self, number: int, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, view: View) -> torch.Tensor:
        """The last layer's keys and values of every token; returns the normed ``x``."""
        normed = self.before(x)
        joined = self.qkv(normed).view(len(x), -1, self.width)[: len(cos)]
        k, v = joined.split([self.groups, self.groups], dim=1)
        if self.k_norm is not None:
            k = self.k_norm(k)
        view.store(number, turned(k, cos, sin), v)
        return normed

    def finish(
        self, number: int, x: torch.Tensor, normed: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, end: OneEach
    ) -> torch.Tensor:
        """The rest of the last layer, for each row's last token."""
        assert self.q is not None
        q = self.q(normed).view(len(x), -1, self.width)[: len(cos)]
        if self.q_norm is not None:
            q = self.q_norm(q)
        return self._after(x, end.attend(number, turned(q, cos, sin), self.scale))

    def _after(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        attended = attended.reshape(len(attended), -1)
        if len(attended) < len(x):
            attended = nn.functional.pad(attended, (0, 0, 0, len(x) - len(attended)))
        x = self.out.plus(attended, x)
        normed = self.between(x)
        gate = self.gate.silu(normed) if self.silu else self.act(self.gate(normed))
        return self.down.plus(self.up.times(normed, gate), x)


class Norm:
    """RMS norm as Llama's, by our kernel, of which there is one for each width of heads."""

    def __init__(self, norm: Any, width: int) -> None:
        self.weight = norm.weight.detach().contiguous()
        self.kernel = kernel(self.weight.device, self.weight.dtype, width)
        self.eps = norm.variance_epsilon
        self.shape = list(self.weight.shape)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel is not None and x.dtype == self.weight.dtype and x.is_contiguous():
            return self.kernel.norm(x, self.weight, self.eps)
        return nn.functional.rms_norm(x, self.shape, self.weight, self.eps)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: ``[T, heads, d]`` turned by ``[T, 1, d]``."""
    half = x.shape[-1] // 2
    if x.shape[0] < MANY:
        return torch.addcmul(x * cos, x.roll(half, -1), sin)
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half])
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
