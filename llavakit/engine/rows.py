"""Rows that are decoded together: the keys and values that each has of its own, and what it shares before them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import torch

from llavakit.engine.attend import Chain, Shared, Sharing, length, part
from llavakit.engine.kernel import Attention, kernel
from llavakit.model import flash

FIRST_ROOM = 64


class Rows:
    """Keys and values ``float[layers, places, heads, room, d]``, kept and grown by doubling; row r is place r."""

    def __init__(self, layers: int, heads: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.kernel = kernel(device, dtype, width)
        self.keys = torch.zeros(layers, 0, heads, 0, width, dtype=dtype, device=device)
        self.values = self.keys.clone()
        self.lengths: list[int] = []
        self.chains: list[Chain] = []
        self.starts: list[int] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, chains: Sequence[Chain], lengths: Sequence[int]) -> None:
        """New rows after the others, with room for their own tokens."""
        self.chains += chains
        self.starts += [length(chain) for chain in chains]
        self.lengths += lengths
        self._room(len(self), max(self.lengths), exact=len(self) == 1 and len(chains) == 1 and not self.keys.numel())

    def grow(self) -> None:
        """One more token in every row."""
        self.lengths = [count + 1 for count in self.lengths]
        self._room(len(self), max(self.lengths))

    def keep(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was; the others leave. A row may be taken more than once."""
        moved = [(new, old) for new, old in enumerate(rows) if new != old]
        self._room(len(rows), 0)
        if moved:
            new, old = (torch.tensor(column, device=self.device) for column in zip(*moved, strict=True))
            used = max(self.lengths)
            for store in (self.keys, self.values):
                store[:, new, :, :used] = store[:, old, :, :used]
        for name in ("lengths", "chains", "starts"):
            column = getattr(self, name)
            setattr(self, name, [column[row] for row in rows])

    def own(self, row: int) -> Shared:
        """What a row has of its own, as a part to share. The same memory where the row is the only one."""
        keys, values = (store[:, row, :, : self.lengths[row]] for store in (self.keys, self.values))
        return Shared(keys, values) if len(self) == 1 else Shared(keys.clone(), values.clone())

    def positions(self, first: int) -> torch.Tensor:
        """Positions of all own tokens of the rows from ``first`` on, row after row: ``int64[T]``."""
        spans = [
            torch.arange(start, start + count)
            for start, count in zip(self.starts[first:], self.lengths[first:], strict=True)
        ]
        return torch.cat(spans).to(self.device)

    def ends(self) -> torch.Tensor:
        """Position of each row's last token: ``int64[n]``."""
        ends = [start + count - 1 for start, count in zip(self.starts, self.lengths, strict=True)]
        return torch.tensor(ends, device=self.device)

    def _room(self, places: int, tokens: int, exact: bool = False) -> None:
        layers, had, heads, room, width = self.keys.shape
        if places <= had and tokens <= room:
            return
        if places > had:
            places = places if exact else max(places, 2 * had)
        if tokens > room:
            tokens = tokens if exact else max(tokens + FIRST_ROOM, 2 * room)
        shape = (layers, max(places, had), heads, max(tokens, room), width)
        for name in ("keys", "values"):
            old = getattr(self, name)
            # Zeros, not whatever the memory holds: a masked value is multiplied by nought, and NaN survives that.
            new = old.new_empty(shape) if exact else old.new_zeros(shape)
            new[:, :had, :, :room] = old
            setattr(self, name, new)


class View(Protocol):
    """Query tokens of some rows, seen by every layer of one forward pass."""

    longest: int
    """positions that occur are below this"""
    native: Attention | None
    """one query token a row by our own kernel, where there is one"""

    @property
    def last(self) -> torch.Tensor:
        """Which of the query tokens are the last of their row."""

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keeps keys and values ``[T, H, d]`` of the query tokens."""

    def attend(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """``[T, heads, d]`` -> ``[T, H, R, d]``."""


class OneEach:
    """The last token of each row from ``first`` on."""

    def __init__(self, rows: Rows, first: int) -> None:
        self.rows, self.first = rows, first
        self.lengths = rows.lengths[first:]
        self.longest = max(start + count for start, count in zip(rows.starts[first:], self.lengths, strict=True))
        self.seen = max(self.lengths)
        self.alike = min(self.lengths) == self.seen
        self.native: Attention | None = None
        if rows.kernel is not None:
            self.native = Attention(rows.kernel, rows.chains[first:], (rows.keys, rows.values), first, self.lengths)

    # What follows costs a step of few rows more than it takes to compute, and our own kernel asks for none of it.

    @functools.cached_property
    def last(self) -> torch.Tensor:
        return torch.arange(len(self.lengths), device=self.rows.device)

    @functools.cached_property
    def places(self) -> torch.Tensor:
        return self.last + self.first

    @functools.cached_property
    def at(self) -> torch.Tensor:
        return torch.tensor(self.lengths, device=self.rows.device) - 1

    @functools.cached_property
    def mask(self) -> torch.Tensor | None:
        if self.alike:
            return None
        hidden = torch.arange(self.seen, device=self.rows.device) > self.at[:, None]
        return torch.zeros_like(hidden, dtype=self.rows.keys.dtype).masked_fill_(hidden, -torch.inf)[:, None, None]

    @functools.cached_property
    def sharing(self) -> Sharing:
        return Sharing(self.rows.chains[self.first :], [1] * len(self.lengths), self.rows.device)

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        for store, value in ((self.rows.keys, k), (self.rows.values, v)):
            if self.alike:
                store[layer, self.first : len(self.rows), :, self.seen - 1] = value
            else:
                store[layer, self.places, :, self.at] = value

    def attend(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        if self.native is not None:
            return self.native(layer, q, scale)
        keys, values = (
            store[layer, self.first : len(self.rows), :, : self.seen] for store in (self.rows.keys, self.rows.values)
        )
        q = q.view(len(q), keys.shape[1], -1, q.shape[-1])
        mask = None if self.mask is None else self.mask.expand(-1, -1, q.shape[2], -1)
        own, lse = part(q, keys, values, scale, mask)
        return self.sharing(layer, q, own, lse, scale)


class Several:
    """All own tokens of the rows from ``first`` on, row after row."""

    native: Attention | None = None

    def __init__(self, rows: Rows, first: int) -> None:
        self.rows, self.first = rows, first
        self.lengths = rows.lengths[first:]
        self.longest = max(start + count for start, count in zip(rows.starts[first:], self.lengths, strict=True))
        counts = torch.tensor(self.lengths)
        self.seen = int(counts.max())
        inside = torch.arange(self.seen) < counts[:, None]
        place, at = inside.nonzero(as_tuple=True)
        self.place, self.at = place.to(rows.device), at.to(rows.device)
        self.last = (counts.cumsum(0) - 1).to(rows.device)
        self.sharing = Sharing(rows.chains[first:], self.lengths, rows.device)

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        self.given = k, v
        for store, value in ((self.rows.keys, k), (self.rows.values, v)):
            if len(self.lengths) == 1:
                store[layer, self.first, :, : self.seen] = value.transpose(0, 1)
            else:
                store[layer, self.place + self.first, :, self.at] = value

    def attend(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        k, v = self.given
        if flash.known(q):
            found = flash.weighed(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), self.lengths, scale)
            own, weight = (x.transpose(0, 1) for x in found)
        else:
            own, weight = self._padded(layer, q, scale)
        shape = (len(q), k.shape[1], -1)
        return self.sharing(
            layer, q.view(*shape, q.shape[2]), own.reshape(*shape, q.shape[2]), weight.reshape(shape), scale
        )

    def _padded(self, layer: int, q: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """By torch's kernels: what each query reads of its row's own tokens, ``[T, heads, d]`` and ``[T, heads]``."""
        keys, values = (
            store[layer, self.first : len(self.rows), :, : self.seen] for store in (self.rows.keys, self.rows.values)
        )
        repeat = q.shape[1] // keys.shape[1]
        if len(self.lengths) == 1:
            padded = q[None]
        else:
            # On the right: what comes after a row's end is seen by nothing before it.
            padded = q.new_zeros(len(self.lengths), self.seen, *q.shape[1:])
            padded[self.place, self.at] = q
        if repeat > 1:
            keys, values = keys.repeat_interleave(repeat, 1), values.repeat_interleave(repeat, 1)
        found = (t.transpose(1, 2) for t in part(padded.transpose(1, 2), keys, values, scale, causal=True))
        own, weight = (t[0] if len(self.lengths) == 1 else t[self.place, self.at] for t in found)
        return own, weight
