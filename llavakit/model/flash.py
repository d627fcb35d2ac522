"""Attention within segments and its gradient by ``flash.cpp``, on CPUs where that can be compiled.

Against plain products in blocks (:mod:`llavakit.model.blocks`), which take its place elsewhere: scores are never
rounded to bfloat16, and of the forward pass no copies are kept. ``benchmarks/train.py`` times the whole step.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from llavakit.model.blocks import Queries
from llavakit.model.cpp import library

SOURCE = Path(__file__).with_name("flash.cpp")
_EVERYTHING = 1 << 40  # a window that hides nothing


def known(query: torch.Tensor) -> bool:
    """Whether queries of such a type and width can be attended here."""
    # A plan's tensors have no storage; a trace would not see what is computed here, and keep it as a constant.
    if type(query) is not torch.Tensor or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    if query.device.type != "cpu" or query.shape[-1] % 2:
        return False
    return _function(query.dtype, query.shape[-1]) is not None


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[int],
    scale: float,
    window: int | None = None,
    queries: Queries | None = None,
) -> torch.Tensor:
    """As :func:`llavakit.model.blocks.attend`; what it returns is laid out as [Q, H, d]."""
    table = _causal(tuple(segments)) if queries is None else _asked(segments, queries.at)
    out: torch.Tensor = _Attend.apply(query, key, value, *table, scale, _EVERYTHING if window is None else window)
    return out


def attend_whole(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Every token of ``float[n, H, T, d]`` sees every other of its n. Returns float[n, T, H, d]."""
    count, _, length, _ = query.shape
    # Laid end to end: for what a linear layer gave, a view.
    rows = (x.transpose(1, 2).flatten(0, 1).transpose(0, 1) for x in (query, key, value))
    out: torch.Tensor = _Attend.apply(*rows, *_whole(count, length), scale, _EVERYTHING)
    return out.transpose(0, 1).unflatten(0, (count, length))


@torch.no_grad()
def weighed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Sequence[int] | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`attend` without gradients and, without ``segments``, to all keys. Returns float[H, Q, d] and, float32
    [H, Q], the logarithm of the sum of each query's exponentials.
    """
    table = _causal(tuple(segments)) if segments is not None else _all(query.shape[1], key.shape[1])
    out, sums = _forward(query, key, value, *table, scale, _EVERYTHING)
    return out, sums * math.log(2)


Table = tuple[torch.Tensor, torch.Tensor]
"""Of every segment int64[n, 4]: its queries, its keys, and where they begin; of every query int64[Q] its position."""


@functools.lru_cache(maxsize=4)
def _causal(segments: tuple[int, ...]) -> Table:
    """Every layer of a row asks for the same."""
    return _table(segments, segments), _numbers([place for length in segments for place in range(length)])


def _all(queries: int, keys: int) -> Table:
    return _table([queries], [keys]), _numbers([keys - 1] * queries)


@functools.lru_cache(maxsize=4)
def _whole(count: int, length: int) -> Table:
    return _table([length] * count, [length] * count), _numbers([length - 1] * count * length)


def _asked(segments: Sequence[int], at: Sequence[Sequence[int]]) -> Table:
    positions = [position for places in at for position in places]
    return _table([len(places) for places in at], segments), _numbers(positions)


def _table(queries: Sequence[int], keys: Sequence[int]) -> torch.Tensor:
    starts = zip(queries, keys, accumulate(queries, initial=0), accumulate(keys, initial=0), strict=False)
    return _numbers(list(starts))


def _numbers(values: Sequence[Any]) -> torch.Tensor:
    """int64 where C++ reads them, whatever torch's default device is."""
    return torch.tensor(values, dtype=torch.int64, device="cpu")


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        segments: torch.Tensor,
        positions: torch.Tensor,
        scale: float,
        window: int,
    ) -> torch.Tensor:
        query, key, value = (_without_gaps(x) for x in (query, key, value))
        out, sums = _forward(query, key, value, segments, positions, scale, window)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.given = segments, positions, scale, window  # not saved: they may have been made in inference mode
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        gradients = [_like(query), _like(key), _like(value)]
        _run([query, key, value, out, _without_gaps(gradient), *gradients], sums, *ctx.given)
        return *gradients, None, None, None, None


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is attended, and log2 of the sum of every query's 2^score; ``given``: as :func:`_run` takes it.

    Raises ValueError for segments that are not the row's.
    """
    segments, positions = given[:2]
    row = query.shape[1], key.shape[1]
    if (len(positions), int(segments[:, 1].sum())) != row or key.shape != value.shape:
        raise ValueError(f"segments {segments[:, :2].tolist()} are not those of {row[0]}, {row[1]} tokens")
    out, sums = _like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
    _run([_without_gaps(query), _without_gaps(key), _without_gaps(value), out], sums, *given)
    return out, sums


def _without_gaps(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _like(x: torch.Tensor) -> torch.Tensor:
    """Room for ``[H, T, d]``, laid out as ``[T, H, d]``: then the layers around need no copy."""
    heads, length, width = x.shape
    return x.new_empty(length, heads, width).transpose(0, 1)


def _run(
    tensors: Sequence[torch.Tensor],
    sums: torch.Tensor,
    segments: torch.Tensor,
    positions: torch.Tensor,
    scale: float,
    window: int,
) -> None:
    """``tensors``: query, key, value, out, and for backward the gradient of out and room for those of the first."""
    query, key = tensors[:2]
    run = _function(query.dtype, query.shape[2])
    assert run is not None and all(x.dtype == query.dtype for x in tensors)
    places = _numbers([number for x in tensors for number in (x.data_ptr(), x.stride(1), x.stride(0))])
    run(
        places.data_ptr(),
        len(tensors),
        sums.data_ptr(),
        segments.data_ptr(),
        len(segments),
        positions.data_ptr(),
        len(key),
        len(query) // len(key),
        query.shape[1],
        scale,
        window,
        torch.get_num_threads(),
    )


@functools.cache
def _function(dtype: torch.dtype, width: int) -> Any:
    """The compiled function for a type and a width of heads; None where there is none."""
    names = {torch.float32: "attend_float", torch.bfloat16: "attend_half"}
    found = library(SOURCE, width) if dtype in names else None
    if found is None or not hasattr(found, names[dtype]):
        return None
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    function = getattr(found, names[dtype])
    function.argtypes = [pointer, number, pointer, pointer, number, pointer, *[number] * 3, real, number, number]
    function.restype = None
    return function
