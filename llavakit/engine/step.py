"""One token for each row through all layers, in one call of our own kernel (``decode.cpp``)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from llavakit.engine.block import Block, Norm
from llavakit.engine.kernel import Attention, Kernel, Matrix
from llavakit.engine.linear import Linear, Panels


class _Norm(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("eps", ctypes.c_float)]


class _Layer(ctypes.Structure):
    _fields_ = [(name, _Norm) for name in ("before", "between", "of_query", "of_key")]
    _fields_ += [(name, Matrix) for name in ("query", "rest", "out", "gate", "up", "down")]
    _fields_ += [("scale", ctypes.c_float)]


class _Model(ctypes.Structure):
    _fields_ = [("layers", ctypes.POINTER(_Layer)), ("count", ctypes.c_int64), ("norm", _Norm), ("head", Matrix)]
    _fields_ += [("heads", ctypes.c_int64), ("repeat", ctypes.c_int64)]


class Step:
    """Layers, norm and head of a decoder whose matrices are all :class:`Panels` and whose norms have a kernel."""

    def __init__(self, run: Kernel, blocks: Sequence[Block], norm: Norm, head: Linear) -> None:
        self.run = run
        own = [part.weight.detach() for block in blocks for part in (block.q_norm, block.k_norm) if part is not None]
        self.held = blocks, norm, head, own  # the structures hold addresses
        layers = (_Layer * len(blocks))(*map(_layer, blocks))
        groups = blocks[0].groups
        self.model = _Model(layers, len(blocks), _norm(norm), _matrix(head), groups, blocks[0].heads // groups)

    @classmethod
    def of(cls, blocks: Sequence[Block], norm: Norm, head: Linear, dtype: torch.dtype) -> Step | None:
        """None where layers are built otherwise or unlike each other, their matrices are left to torch, or something is
        not ``dtype``."""
        linears = [head, *(linear for block in blocks for linear in block.linears())]
        norms = [norm, *(own for block in blocks for own in (block.before, block.between, block.q_norm, block.k_norm))]
        types = {each.weight.dtype for each in (*linears, *filter(None, norms)) if each.weight is not None}
        packed = all(isinstance(linear.packed, Panels) for linear in linears)
        # Room is taken once for all layers.
        alike = (
            len({(block.heads, block.groups, *map(_shape, (block.out, block.gate, block.up))) for block in blocks}) == 1
        )
        known = all(block.silu and _headed(block) for block in blocks)
        if norm.kernel is None or not packed or not alike or not known or types != {dtype}:
            return None
        return cls(norm.kernel, blocks, norm, head)

    def __call__(self, x: torch.Tensor, view: Attention, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """``x`` float[T, hidden], overwritten, of the last token of each row that ``view`` has; turned by ``cos, sin``
        [T, 1, d]. Returns logits ``float[T, V]``."""
        logits = x.new_empty(len(x), self.model.head.outputs)
        self.run.step(self.model, view.seen(cos, sin), x, logits)
        return logits


def _matrix(linear: Linear) -> Matrix:
    assert isinstance(linear.packed, Panels)
    return linear.packed.matrix


def _shape(linear: Linear) -> tuple[int, ...]:
    return () if linear.weight is None else tuple(linear.weight.shape)


def _headed(block: Block) -> bool:
    """Whether neither queries nor keys have a norm of their own, or each head has one that is computed as the layer's
    (others of its name add 1 to the weight, or are of all heads together)."""
    norms = [norm for norm in (block.q_norm, block.k_norm) if norm is not None]
    alike = all(type(norm) is block.norm and tuple(norm.weight.shape) == (block.width,) for norm in norms)
    return alike and len(norms) != 1


def _norm(norm: Norm) -> _Norm:
    return _Norm(norm.weight.data_ptr(), norm.eps)


def _own_norm(module: Any) -> _Norm:
    return _Norm() if module is None else _Norm(module.weight.data_ptr(), module.variance_epsilon)


def _layer(block: Block) -> _Layer:
    query = [block.qkv] if block.q is None else [block.q, block.qkv]
    first, rest = [*map(_matrix, query), Matrix()][:2]
    others = map(_matrix, (block.out, block.gate, block.up, block.down))
    norms = (_norm(block.before), _norm(block.between), _own_norm(block.q_norm), _own_norm(block.k_norm))
    return _Layer(*norms, first, rest, *others, block.scale)
