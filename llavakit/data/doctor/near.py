"""Pictures that look the same: pairs of hashes that differ in few bits, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BITS = 6
"""Hashes that differ in no more bits look the same. Halved photographs saved anew differ in 0 to 6 of the 63 bits of
:func:`~llavakit.data.doctor.pictures.look`, unrelated ones in 14 and more (360 photographs of COCO and Flickr)."""
_BANDS, _WIDTH = 7, 9  # 7 x 9 = 63: two hashes that differ in 6 bits agree in a whole band
_BLOCK = 2048


def near_pairs(looks: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) of distinct ``uint64[n]`` below 2**63 that differ in at most :data:`BITS` bits, each once."""
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        part = (looks >> np.uint64(_WIDTH * band)) & np.uint64(2**_WIDTH - 1)
        order = np.argsort(part, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            for pair in _within(looks, group):
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _within(looks: np.ndarray, group: np.ndarray) -> Iterator[tuple[int, int]]:
    """The near pairs of some ascending indices."""
    for start in range(0, len(group), _BLOCK):
        rows, columns = group[start : start + _BLOCK], group[start:]
        near = np.bitwise_count(looks[rows][:, None] ^ looks[columns][None, :]) <= BITS
        left, right = np.nonzero(np.triu(near, k=1))
        yield from zip(rows[left].tolist(), columns[right].tolist(), strict=True)
