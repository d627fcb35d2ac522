"""Pictures that look the same: pairs of 64-bit hashes that differ in few bits, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BITS = 3
"""Hashes that differ in no more bits look the same. With 4 bands of 16 bits, two such hashes share a whole band."""
CROWD = 256  # of one band's value: further neighbours are not compared (a series of near-equal pictures)


def near_pairs(looks: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) of ``uint64[n]`` that differ in at most :data:`BITS` bits, each once; a chain in a crowd of more
    than :data:`CROWD` neighbours may miss some of its pairs, not its members."""
    seen: set[tuple[int, int]] = set()
    for band in range(4):
        part = (looks >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.lexsort((looks, part))
        for step in range(1, min(CROWD, len(order))):
            left, right = order[:-step], order[step:]
            same = part[left] == part[right]
            if not same.any():
                break
            left, right = left[same], right[same]
            close = np.bitwise_count(looks[left] ^ looks[right]) <= BITS
            for i, j in zip(left[close].tolist(), right[close].tolist(), strict=True):
                pair = (i, j) if i < j else (j, i)
                if pair not in seen:
                    seen.add(pair)
                    yield pair
