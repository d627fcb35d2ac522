"""Choices that are functions of (seed, names, key): equal on every machine, in every order, with any number of workers.

Hashes, not a generator: numpy and Python may change what their generators give, and a generator has a state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """``Dice(seed, "vg", "limit")``: dice that know nothing of any others."""

    def __init__(self, seed: int, *names: str) -> None:
        self.prefix = "\x1f".join([str(seed), *names]) + "\x1f"

    def roll(self, key: object) -> int:
        """64 bits that belong to ``key``."""
        return int.from_bytes(hashlib.blake2b(f"{self.prefix}{key}".encode(), digest_size=8).digest(), "big")

    def pick(self, options: Sequence[T], key: object) -> T:
        """One of ``options``."""
        return options[self.roll(key) % len(options)]

    def sample(self, items: Sequence[T], count: int, key: Callable[[T], object]) -> list[T]:
        """``count`` of the items (all, where there are not so many), in the order in which they stand."""
        ranked = sorted(range(len(items)), key=lambda i: (self.roll(key(items[i])), i))
        return [items[i] for i in sorted(ranked[:count])]
