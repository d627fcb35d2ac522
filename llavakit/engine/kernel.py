"""The small work of decoding (attention, rotary positions, norms) as C++ of our own (:mod:`llavakit.model.cpp`).

torch's attention reads a shared prefix slowly for the few queries of a decoding step, and bfloat16 more slowly still;
and the many small calls around it take longer to begin than to do. Where there is no compiler, no Linux or no CPU,
torch's are used (:mod:`llavakit.engine.attend`).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from llavakit.engine.attend import Chain
from llavakit.model.cpp import library

SOURCE = Path(__file__).with_name("attend.cpp")

Rooms = tuple[torch.Tensor, torch.Tensor]


class Kernel:
    """The compiled functions for heads of one width."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self.attend, self._norm = library.attend, library.norm
        self.attend.argtypes = [pointer, number, pointer, *[number] * 4, pointer, number, pointer, real]
        self.attend.argtypes += [number, number, pointer]
        self._norm.argtypes = [pointer, pointer, pointer, number, number, real, number]
        self.attend.restype = self._norm.restype = None

    def norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """RMS norm of ``[T, width]``, of one precision with ``weight [width]``; neither has gaps."""
        out = torch.empty_like(x)
        half = int(x.dtype == torch.bfloat16)
        self._norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps, half)
        return out


class Attention:
    """Who sees what in one decoding step of T rows, each with a chain of shared parts and its own tokens after it."""

    def __init__(self, run: Kernel, chains: Sequence[Chain], own: Rooms, first: int, lengths: Sequence[int]) -> None:
        """``own``: keys and values ``[layers, places, H, room, d]``, of which row i has place ``first + i``; the query
        tokens are the last of their rows."""
        self.run, self.tokens = run.attend, len(lengths)
        keys, values = own
        _, self.place, head, self.width, _ = keys.stride()
        self.heads = keys.shape[2]
        self.half = int(keys.dtype == torch.bfloat16)
        self.held = (chains, own)  # the table holds addresses
        table, rows = _shared(chains)
        for row, count in enumerate(lengths):
            at = (first + row) * self.place * keys.element_size()
            table.append([keys.data_ptr() + at, values.data_ptr() + at, keys.stride(0), head, count, len(rows), 1])
            rows.append(row)
        self.table, self.rows = torch.tensor(table, device="cpu"), torch.tensor(rows, device="cpu")
        ends = [(first + row) * self.place + (count - 1) * self.width for row, count in enumerate(lengths)]
        self.at = torch.tensor(ends, device="cpu")
        self.store = [keys.data_ptr(), values.data_ptr(), keys.stride(0), head, self.at.data_ptr()]
        self.still = torch.tensor([*self.store, 0, 0], device="cpu")

    def __call__(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """``q [T, heads, d]`` -> ``[T, H, R, d]``; R queries share a key head. Keys and values are stored already."""
        return self._attend(layer, q, q.shape[1] // self.heads, scale, self.still)

    def turned(
        self, layer: int, joined: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The same of ``joined [T or more, heads + 2 H, d]``: queries, keys and values as their matrix gives them. They
        are turned by ``cos, sin [T, 1, d]``, keys and values stored. Returns as many tokens as there are in ``joined``,
        those beyond T zeros."""
        store = torch.tensor([*self.store, cos.data_ptr(), sin.data_ptr()], device="cpu")
        return self._attend(layer, joined, joined.shape[1] // self.heads - 2, scale, store)

    def _attend(self, layer: int, q: torch.Tensor, repeat: int, scale: float, store: torch.Tensor) -> torch.Tensor:
        if q.stride()[1:] != (self.width, 1):
            q = q.contiguous()
        shape = (len(q), self.heads, repeat, self.width)
        out = q.new_empty(shape) if len(q) == self.tokens else q.new_zeros(shape)
        self.run(
            self.table.data_ptr(),
            len(self.table),
            self.rows.data_ptr(),
            layer,
            self.tokens,
            self.heads,
            repeat,
            q.data_ptr(),
            q.stride(0),
            out.data_ptr(),
            scale,
            self.half,
            torch.get_num_threads(),
            store.data_ptr(),
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


def kernel(device: torch.device, dtype: torch.dtype, width: int) -> Kernel | None:
    """The compiled functions for heads of ``width``, or None where there is none."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return None
    return _built(width)


@functools.cache
def _built(width: int) -> Kernel | None:
    found = library(SOURCE, width)
    return None if found is None else Kernel(found)
