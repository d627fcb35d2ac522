"""What is computed once and shared: prefixes by their tokens, picture features by the picture. Bounded; the least
recently used goes first."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from llavakit.engine.attend import Chain, Shared

# A part that is shared costs an attention call in every layer of every step; for fewer tokens than these it is not
# worth it.
WORTH = 16


@dataclass(eq=False)
class Node:
    """A computed part of a prompt: ``keys`` int64[n] names its tokens, which come after ``at`` tokens of ``parent``."""

    keys: np.ndarray
    shared: Shared
    parent: Node | None = None
    at: int = 0
    children: list[Node] = field(default_factory=list)
    holders: int = 0
    used: int = 0


@dataclass(frozen=True)
class Use:
    """The first ``count`` tokens of a node."""

    node: Node
    count: int


Path = tuple[Use, ...]


def chain(path: Path) -> Chain:
    return tuple(use.node.shared.first(use.count) for use in path)


def tokens(path: Path) -> int:
    return sum(use.count for use in path)


class Prefixes:
    """A tree of computed parts. What somebody holds stays, and counts; the rest leaves, least recently used first,
    until the whole is within ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._roots: list[Node] = []
        self._clock = 0

    def find(self, keys: np.ndarray) -> Path:
        """The longest computed beginning of a prompt."""
        path = self._longest(self._roots, keys, 0)
        self._touch(path)
        return path

    def add(self, path: Path, keys: np.ndarray, shared: Shared) -> Path:
        """Keeps a part that comes after ``path``; returns the longer path, held by its caller alone."""
        parent = path[-1] if path else None
        node = Node(keys, shared, parent.node if parent else None, parent.count if parent else 0)
        (parent.node.children if parent else self._roots).append(node)
        self.bytes += shared.bytes
        longer = (*path, Use(node, len(keys)))
        self._touch(longer)
        return longer

    def hold(self, path: Path) -> None:
        for use in path:
            use.node.holders += 1

    def release(self, path: Path) -> None:
        for use in path:
            use.node.holders -= 1
        self.trim()

    def trim(self) -> None:
        """Throws away until within the limit. A node goes after those that come after it."""
        while self.bytes > self.limit:
            free = [node for node in self._walk(self._roots) if not node.holders and not node.children]
            if not free:
                return
            oldest = min(free, key=lambda node: node.used)
            (oldest.parent.children if oldest.parent else self._roots).remove(oldest)
            self.bytes -= oldest.shared.bytes

    def _longest(self, nodes: Sequence[Node], keys: np.ndarray, before: int) -> Path:
        """``before``: how many tokens of the nodes' parent agree with the prompt, whose ``keys`` begin where it did."""
        best: Path = ()
        most = 0
        for node in nodes:
            if node.at > before:
                continue
            rest = keys[node.at :]
            count = _agreeing(node.keys, rest)
            if count < min(WORTH, len(node.keys)):
                continue
            path = (Use(node, count), *self._longest(node.children, rest, count))
            if len(path) > 1:
                path = (Use(node, path[1].node.at), *path[1:])
            if tokens(path) + node.at > most:
                best, most = path, tokens(path) + node.at
        return best if most > before else ()

    def _walk(self, nodes: Sequence[Node]) -> list[Node]:
        return [found for node in nodes for found in (node, *self._walk(node.children))]

    def _touch(self, path: Path) -> None:
        self._clock += 1
        for use in path:
            use.node.used = self._clock


class Features:
    """Features ``float[N, H]`` of squares of pixels, by their hash; at most ``limit`` bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._items: OrderedDict[int, torch.Tensor] = OrderedDict()

    def get(self, key: int) -> torch.Tensor | None:
        found = self._items.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._items.move_to_end(key)
        return found

    def put(self, key: int, value: torch.Tensor) -> None:
        if key in self._items:
            return
        self._items[key] = value
        self.bytes += value.numel() * value.element_size()
        while self.bytes > self.limit:
            _, gone = self._items.popitem(last=False)
            self.bytes -= gone.numel() * gone.element_size()


def pixel_hash(pixels: np.ndarray) -> int:
    """uint8 pixels of one square -> 64 bits."""
    return int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "little")


def _agreeing(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common beginning."""
    count = min(len(a), len(b))
    different = np.flatnonzero(a[:count] != b[:count])
    return int(different[0]) if len(different) else count
