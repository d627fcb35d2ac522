"""Decoder layers that do only what somebody needs, for training on packed rows.

The layers stay transformers' own: hooks, adapters and sharding see the modules that they know, and every matrix is
called through its module. Only what stands between the matrices is ours, and of the last layer only those positions are
computed whose next token is supervised: keys and values of all, queries and all that follows of these.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from llavakit.base.errors import BadRequest
from llavakit.model.attention import attend, packed, segmented
from llavakit.model.blocks import Queries
from llavakit.model.fused import rms_norm, rotate, silu_times

Recompute = Literal["none", "layers", "products"]
PRODUCTS = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]


def packed_states(
    language_model: Any,
    positions: torch.Tensor,
    segments: list[int],
    predict: torch.Tensor | None = None,
    asked: list[list[int]] | None = None,
    **given: torch.Tensor,
) -> torch.Tensor:
    """Last hidden states ``float[T, H]`` of a packed row, ``given`` as ``input_ids [1, T]`` or ``inputs_embeds``; or
    ``[S, H]`` of its positions ``predict`` int64[S], ascending. ``asked``: these as :func:`blocks.places` has them."""
    queries = None
    # Where nothing is supervised keys and values still get their gradient of zero: other ranks sum it with theirs.
    if _prepared(language_model) and predict is not None and len(predict):
        queries = Queries.of(predict, segments) if asked is None else Queries(predict, asked)
    with packed(language_model):
        out = language_model.base_model(
            position_ids=positions[None],
            use_cache=False,
            segments=segments,
            **({} if queries is None else {"queries": queries}),
            **given,
        )
    states: torch.Tensor = out.last_hidden_state[0]
    return states if predict is None or queries is not None else states.index_select(0, predict)


def _prepared(language_model: Any) -> bool:
    """Teaches the layers of ``language_model`` to take ``segments`` (and the last one ``queries``), in place; any
    other call of them is as before. Returns whether its last layer heeds ``queries``."""
    layers = language_model.base_model.layers
    known = _known(layers[-1])
    for layer in layers:
        if "forward" not in vars(layer):
            layer.forward = MethodType(_packed_layer, layer)
        layer.is_last = layer is layers[-1]
    return known


def _known(layer: nn.Module) -> bool:
    """Whether it is a layer as Llama's: transformers' class says what it computes."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer
    from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
    from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

    if not isinstance(layer, (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)):
        return False
    return not (layer.training and layer.self_attn.attention_dropout)


def _packed_layer(
    self: Any,
    hidden_states: torch.Tensor,
    *args: Any,
    segments: list[int] | None = None,
    queries: Queries | None = None,
    **others: Any,
) -> torch.Tensor:
    """The forward of a layer, as its method."""
    plain: Callable[..., torch.Tensor] = type(self).forward
    if segments is None:
        return plain(self, hidden_states, *args, **others)
    if not segmented(self.self_attn.config):
        return plain(self, hidden_states, *args, segments=segments, **others)
    if _known(self):
        asked = queries if self.is_last else None
        run = partial(_layer, self, positions=others["position_embeddings"], segments=segments, queries=asked)
    else:
        run = partial(_plain_layer, self, args, segments=segments, **others)
    how: Recompute = getattr(self, "recompute", "none")
    if how == "none" or not (self.training and torch.is_grad_enabled()):
        return run(hidden_states)
    keep: dict[str, Any] = {}
    if how == "products":
        keep["context_fn"] = partial(create_selective_checkpoint_contexts, PRODUCTS)
    out: torch.Tensor = checkpoint(run, hidden_states, use_reentrant=False, **keep)
    return out


def _plain_layer(layer: Any, args: tuple[Any, ...], hidden_states: torch.Tensor, **others: Any) -> torch.Tensor:
    """transformers' own forward of it. Within :func:`packed` of its own: backward may compute it again, much later."""
    with packed(layer.self_attn):
        out: torch.Tensor = type(layer).forward(layer, hidden_states, *args, **others)
    return out


def check_compiled(language_model: Any) -> None:
    """Raises :class:`BadRequest` for layers that are not compiled: unknown ones, and those with dropout in training;
    and where there is no C++ compiler, which torch.compile itself needs."""
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))):
        raise BadRequest("compile: there is no C++ compiler; install g++, or leave compile out")
    for layer in language_model.base_model.layers:
        if not _known(layer) or layer.self_attn.attention_dropout:
            raise BadRequest(f"compile: a {type(layer).__name__}, or one with dropout, is not compiled; leave it out")


def arrange_layers(language_model: Any, recompute: Recompute, compiled: bool) -> None:
    """Has the layers of ``language_model`` keep, when they train, only what ``recompute`` says, and run what stands
    before and after attention ``compiled``; whether that can be, :func:`check_compiled` says."""
    for layer in language_model.base_model.layers:
        layer.recompute, layer.compiled = recompute, compiled


@functools.cache
def _halves(compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What stands before attention and after it. Attention itself depends on the lengths of the segments, of which
    every list would be compiled anew."""
    if not compiled:
        return _before, _after
    return torch.compile(_before, dynamic=True), torch.compile(_after, dynamic=True)


def _layer(
    layer: Any,
    x: torch.Tensor,
    positions: tuple[torch.Tensor, torch.Tensor],
    segments: list[int],
    queries: Queries | None,
) -> torch.Tensor:
    """``x`` float[1, T, H] -> float[1, T, H], or [1, S, H] of the S ``queries``."""
    # Not for validation: what it needs would be compiled apart.
    before, after = _halves(getattr(layer, "compiled", False) and torch.is_grad_enabled())
    x, q, k, v = before(layer, x, positions, None if queries is None else queries.index)
    read = attend(q, k, v, segments, layer.self_attn.scaling, _window(layer.self_attn), queries)
    out: torch.Tensor = after(layer, x, read)
    return out


def _before(
    layer: Any, x: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor], asking: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """``x`` float[1, T, H] -> those that are ``asking`` [S, H], their queries [heads, S, d], all keys and values."""
    x = x[0]  # here, since torch.compile would tell views apart by what they are views of
    attention, normed = layer.self_attn, norm(layer.input_layernorm, x)
    cos, sin = (half[0, :, None, : half.shape[-1] // 2] for half in positions)
    k = _heads(attention, "k", normed, cos, sin)
    v = attention.v_proj(normed).unflatten(-1, (-1, attention.head_dim))
    if asking is not None:
        x, normed, cos, sin = (t.index_select(0, asking) for t in (x, normed, cos, sin))
    q = _heads(attention, "q", normed, cos, sin)
    return x, q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)


def _after(layer: Any, x: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """What was ``read`` float[heads, S, d], added to ``x`` [S, H], and the MLP: [1, S, H]."""
    x = x + layer.self_attn.o_proj(read.transpose(0, 1).flatten(1))
    # Not a view, of which FSDP would warn.
    return x[None] + _mlp(layer.mlp, norm(layer.post_attention_layernorm, x))[None]


def norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    """What a Llama's RMSNorm makes of ``x``, in the type of the next product."""
    if x.device.type != "cpu":
        out: torch.Tensor = module(x)
        return out
    return rms_norm(x, module.weight, module.variance_epsilon)


def _heads(attention: Any, name: str, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries or keys ``[T, heads, d]`` of ``x [T, H]``, turned to their positions."""
    heads = getattr(attention, f"{name}_proj")(x).unflatten(-1, (-1, attention.head_dim))
    own_norm = getattr(attention, f"{name}_norm", None)
    if own_norm is not None:
        heads = own_norm(heads)
    return rotate(heads, cos.to(heads.dtype), sin.to(heads.dtype))


def _window(attention: Any) -> int | None:
    """How far back a layer sees. Mistral's is in its configuration; Qwen's layers differ, and each has its own."""
    if hasattr(attention, "sliding_window"):
        own: int | None = attention.sliding_window
        return own
    return getattr(attention.config, "sliding_window", None)


def _mlp(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(mlp.act_fn, nn.SiLU) or getattr(mlp.config, "hidden_act", "") == "silu":
        out: torch.Tensor = mlp.down_proj(silu_times(mlp.gate_proj(x), mlp.up_proj(x)))
        return out
    plain: torch.Tensor = mlp(x)
    return plain
