"""Packing: examples of one step -> rows of at most ``capacity`` tokens, filled best-fit."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped into rows, longest first, each put where it leaves least room (best-fit
    decreasing). Within a row indices ascend; an example longer than ``capacity`` has a row of its own."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (room left, row number), ascending
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(room, (lengths[index], -1))
        if at == len(room):
            rows.append([index])
            left, row = capacity - lengths[index], len(rows) - 1
        else:
            left, row = room.pop(at)
            rows[row].append(index)
            left -= lengths[index]
        if left > 0:
            insort(room, (left, row))
    return [sorted(row) for row in rows]
