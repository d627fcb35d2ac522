"""Decoding in C++ of our own (:mod:`llavakit.model.cpp`): products, attention, norms, and a step of them all.

torch's attention reads a shared prefix slowly for the few queries of a decoding step, its products do not read weights
as fast as memory gives them, and the many small calls around both take longer to begin than to do. Where there is no
compiler, no Linux or no CPU, torch's are used (:mod:`llavakit.engine.attend`, :mod:`llavakit.engine.linear`).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from llavakit.engine.attend import Chain
from llavakit.model.cpp import library

SOURCE = Path(__file__).with_name("decode.cpp")

Rooms = tuple[torch.Tensor, torch.Tensor]
_POINTER, _NUMBER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class Matrix(ctypes.Structure):
    """A matrix as it was laid out, of ``decode.cpp``; it keeps no tensor alive."""

    _fields_ = [("panels", _POINTER), ("bias", _POINTER), ("inputs", _NUMBER), ("outputs", _NUMBER)]


class Store(ctypes.Structure):
    """Where new keys and values go, and how they are turned."""

    _fields_ = [("keys", _POINTER), ("values", _POINTER), ("layer", _NUMBER), ("head", _NUMBER), ("at", _POINTER)]
    _fields_ += [("cos", _POINTER), ("sin", _POINTER)]


class Seen(ctypes.Structure):
    """Which keys and values are seen by which rows."""

    _fields_ = [("segments", _POINTER), ("count", _NUMBER), ("rows", _POINTER), ("store", Store)]


class Kernel:
    """The compiled functions for heads of one width."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.attend, self._step = library.attend_tokens, library.step
        self._norm, self._units = library.norm_tokens, library.units
        self._lay_out, self._multiply = library.lay_out, library.multiply
        self.attend.argtypes = [_POINTER, *[_NUMBER] * 4, _POINTER, _NUMBER, _POINTER, _REAL, _NUMBER, _NUMBER]
        self._step.argtypes = [*[_POINTER] * 3, _NUMBER, _POINTER, _NUMBER, _NUMBER]
        self._norm.argtypes = [*[_POINTER] * 3, _NUMBER, _NUMBER, _REAL, _NUMBER, _NUMBER]
        self._units.argtypes = [_NUMBER] * 3
        self._lay_out.argtypes = [_POINTER, _NUMBER, _NUMBER, _POINTER, _NUMBER, _NUMBER]
        self._multiply.argtypes = [_POINTER, _POINTER, *[_NUMBER] * 3, _POINTER, _POINTER, _NUMBER, _NUMBER]
        self._units.restype = _NUMBER
        for function in (self.attend, self._step, self._norm, self._lay_out, self._multiply):
            function.restype = None

    def norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """RMS norm of ``[T, width]``, of one precision with ``weight [width]``; neither has gaps."""
        out = torch.empty_like(x)
        self._norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps, _half(x), torch.get_num_threads())
        return out

    def lay_out(self, weight: torch.Tensor) -> torch.Tensor | None:
        """A matrix ``[out, in]`` in the order in which :meth:`multiply` reads it; None where that is not for it."""
        outputs, inputs = weight.shape
        size = self._units(inputs, outputs, _half(weight))
        if not size:
            return None
        panels = torch.empty(size, dtype=torch.int32, device="cpu")
        weight = weight.contiguous()
        self._lay_out(weight.data_ptr(), inputs, outputs, panels.data_ptr(), _half(weight), torch.get_num_threads())
        return panels

    def multiply(self, matrix: Matrix, x: torch.Tensor, then: int, other: torch.Tensor | None) -> torch.Tensor:
        """``[T, in]`` -> ``[T, out]``; ``then``: 0 nothing, 1 SiLU, 2 plus ``other`` [T, out], 3 times it."""
        if x.stride(1) != 1 or x.stride(0) % 2:  # two of bfloat16 are read as one
            x = x.contiguous()
        out = x.new_empty(len(x), matrix.outputs)
        given = None if other is None else other.contiguous()
        self._multiply(
            ctypes.byref(matrix),
            x.data_ptr(),
            x.stride(0),
            len(x),
            then,
            None if given is None else given.data_ptr(),
            out.data_ptr(),
            _half(x),
            torch.get_num_threads(),
        )
        return out

    def step(self, model: ctypes.Structure, seen: Seen, x: torch.Tensor, logits: torch.Tensor) -> None:
        """All of ``model`` (:mod:`llavakit.engine.step`) for ``x`` [T, hidden], overwritten, into ``logits`` [T, V]."""
        self._step(
            ctypes.byref(model),
            ctypes.byref(seen),
            x.data_ptr(),
            len(x),
            logits.data_ptr(),
            _half(x),
            torch.get_num_threads(),
        )


class Attention:
    """Who sees what in one decoding step of T rows, each with a chain of shared parts and its own tokens after it."""

    def __init__(self, run: Kernel, chains: Sequence[Chain], own: Rooms, first: int, lengths: Sequence[int]) -> None:
        """``own``: keys and values ``[layers, places, H, room, d]``, of which row i has place ``first + i``; the query
        tokens are the last of their rows."""
        self.run, self.tokens = run, len(lengths)
        keys, values = own
        _, self.place, head, self.width, _ = keys.stride()
        self.heads = keys.shape[2]
        self.held = (chains, own)  # the table holds addresses
        table, rows = _shared(chains)
        for row, count in enumerate(lengths):
            at = (first + row) * self.place * keys.element_size()
            table.append([keys.data_ptr() + at, values.data_ptr() + at, keys.stride(0), head, count, len(rows), 1])
            rows.append(row)
        ends = [(first + row) * self.place + (count - 1) * self.width for row, count in enumerate(lengths)]
        self.segments = len(table)
        self.table, self.rows, self.at = _numbers([n for line in table for n in line]), _numbers(rows), _numbers(ends)
        self.store = (keys.data_ptr(), values.data_ptr(), keys.stride(0), head, ctypes.addressof(self.at))

    def seen(self, cos: torch.Tensor | None = None, sin: torch.Tensor | None = None) -> Seen:
        """With ``cos, sin [T, 1, d]`` new keys and values are turned and stored; without they are already."""
        turn = () if cos is None or sin is None else (cos.data_ptr(), sin.data_ptr())
        table, rows = ctypes.addressof(self.table), ctypes.addressof(self.rows)
        return Seen(table, self.segments, rows, Store(*self.store, *turn))

    def __call__(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """``q [T, heads, d]`` -> ``[T, H, R, d]``; R queries share a key head. Keys and values are stored already."""
        return self._attend(layer, q, q.shape[1] // self.heads, scale, self.seen())

    def turned(
        self, layer: int, joined: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The same of ``joined [T or more, heads + 2 H, d]``: queries, keys and values as their matrix gives them. They
        are turned by ``cos, sin [T, 1, d]``, keys and values stored. Returns as many tokens as there are in ``joined``,
        those beyond T zeros."""
        return self._attend(layer, joined, joined.shape[1] // self.heads - 2, scale, self.seen(cos, sin))

    def _attend(self, layer: int, q: torch.Tensor, repeat: int, scale: float, seen: Seen) -> torch.Tensor:
        if q.stride()[1:] != (self.width, 1):
            q = q.contiguous()
        shape = (len(q), self.heads, repeat, self.width)
        out = q.new_empty(shape) if len(q) == self.tokens else q.new_zeros(shape)
        self.run.attend(
            ctypes.byref(seen),
            layer,
            self.tokens,
            self.heads,
            repeat,
            q.data_ptr(),
            q.stride(0),
            out.data_ptr(),
            scale,
            _half(q),
            torch.get_num_threads(),
        )
        return out


def _shared(chains: Sequence[Chain]) -> tuple[list[list[int]], list[int]]:
    """Segments of the shared parts, and the rows that see them."""
    table: list[list[int]] = []
    rows: list[int] = []
    for level in range(max(map(len, chains), default=0)):
        members: dict[tuple[int, int], list[int]] = {}
        for row, chain in enumerate(chains):
            if level < len(chain):
                members.setdefault((chain[level].keys.data_ptr(), len(chain[level])), []).append(row)
        for found in members.values():
            keys, values = chains[found[0]][level].keys, chains[found[0]][level].values
            assert keys.stride() == values.stride() and keys.stride()[2:] == (keys.shape[3], 1)
            places = [keys.data_ptr(), values.data_ptr(), keys.stride(0), keys.stride(1)]
            table.append([*places, keys.shape[2], len(rows), len(found)])
            rows += found
    return table, rows


def _numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def _half(tensor: torch.Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)


def kernel(device: torch.device, dtype: torch.dtype, width: int) -> Kernel | None:
    """The compiled functions for heads of ``width``, or None where there is none."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return None
    return _built(width)


@functools.cache
def _built(width: int) -> Kernel | None:
    found = library(SOURCE, width)
    return None if found is None else Kernel(found)
