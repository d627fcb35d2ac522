"""Packing: examples of one step -> rows of at most ``capacity`` tokens, as few as a short search finds."""

from __future__ import annotations

import random
from collections.abc import Sequence

TRIES = 20
"""Orders at most. On LLaVA's lengths a few are enough: mostly rows of 4096 are then as few as they can be."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped into rows: of one order after another the next that is left, and with it those
    that fill its row best. The longest first, then by (seeded) chance, since what is left over in the end depends on
    it. Within a row indices ascend; an example longer than ``capacity`` has a row of its own."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))
    best = _rows(order, lengths, capacity)
    fewest = -(-sum(min(length, capacity) for length in lengths) // capacity)
    chance = random.Random(0)
    for _ in range(TRIES):
        if len(best) <= fewest:
            break
        chance.shuffle(order)
        best = min(best, _rows(order, lengths, capacity), key=len)
    return best


def _rows(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    left, rows = list(order), []
    while left:
        first = left.pop()
        row = [first, *_fullest(left, lengths, capacity - lengths[first])]
        taken = set(row)
        left = [i for i in left if i not in taken]
        rows.append(sorted(row))
    return rows


def _fullest(indices: Sequence[int], lengths: Sequence[int], room: int) -> list[int]:
    """Those of ``indices`` whose lengths have the largest sum within ``room``, the later ones preferred."""
    if room <= 0:
        return []
    # Bit s of reachable[k]: some of the first k have the sum s.
    reachable, within = [1], (1 << (room + 1)) - 1
    for index in indices:
        reachable.append((reachable[-1] | reachable[-1] << lengths[index]) & within)
    total, chosen = reachable[-1].bit_length() - 1, []
    for k in range(len(indices) - 1, -1, -1):
        rest = total - lengths[indices[k]]
        if rest >= 0 and reachable[k] >> rest & 1:
            chosen.append(indices[k])
            total = rest
    return chosen
