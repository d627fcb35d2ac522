"""Packing: examples of one step -> rows of at most ``capacity`` tokens, each as full as what is left allows."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped into rows: the longest that is left, and with it those that fill its row best.
    Within a row indices ascend; an example longer than ``capacity`` has a row of its own."""
    left = sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))
    rows = []
    while left:
        longest = left.pop()
        row = [longest, *_fullest(left, lengths, capacity - lengths[longest])]
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
