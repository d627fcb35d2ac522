"""Shared parts: the longest beginning is found, memory stays within its bound, what is held stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.engine.attend import Shared
from llavakit.engine.cache import WORTH, Features, Path, Prefixes, tokens

EACH = 2 * 4  # bytes that a token takes below: a key and a value of one float


def shared(count: int) -> Shared:
    return Shared(torch.zeros(1, 1, count, 1), torch.zeros(1, 1, count, 1))


def put(prefixes: Prefixes, keys: np.ndarray) -> Path:
    """What the batch does with a prompt: finds, adds the rest, holds."""
    path = prefixes.find(keys)
    if tokens(path) < len(keys):
        path = prefixes.add(path, keys[tokens(path) :], shared(len(keys) - tokens(path)))
    prefixes.hold(path)
    return path


def spelled(path: Path) -> list[int]:
    return [key for use in path for key in use.node.keys[: use.count].tolist()]


@given(
    prompts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(WORTH, 60)), min_size=1, max_size=30),
    limit=st.sampled_from([0, 100 * EACH, 10**6]),
    held=st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_what_is_found_is_a_beginning_and_memory_is_bounded(
    prompts: list[tuple[int, int, int]], limit: int, held: int
) -> None:
    prefixes = Prefixes(limit)
    holding: list[Path] = []
    for first, second, count in prompts:
        keys = np.array([first] * 20 + [10 + second] * 20 + list(range(100, 100 + count)), dtype=np.int64)
        path = put(prefixes, keys)
        assert spelled(path) == keys.tolist()
        assert spelled(prefixes.find(keys)) == keys.tolist(), "what is held is there"
        holding.append(path)
        if len(holding) > held:
            prefixes.release(holding.pop(0))
        nodes = prefixes._walk(prefixes._roots)
        assert prefixes.bytes == sum(node.shared.bytes for node in nodes)
        in_use = {id(node): node for path in holding for use in path for node in above(use.node)}
        assert prefixes.bytes <= max(limit, sum(node.shared.bytes for node in in_use.values()))
    for path in holding:
        prefixes.release(path)
    assert prefixes.bytes <= limit


def above(node: object) -> list:  # type: ignore[type-arg]
    return [] if node is None else [node, *above(node.parent)]  # type: ignore[attr-defined]


def test_the_least_recently_used_goes_first() -> None:
    prefixes = Prefixes(3 * 20 * EACH)
    prompts = [np.full(20, number) for number in range(4)]
    for prompt in prompts[:3]:
        prefixes.release(put(prefixes, prompt))
    prefixes.find(prompts[0])
    prefixes.release(put(prefixes, prompts[3]))
    assert [tokens(prefixes.find(prompt)) for prompt in prompts] == [20, 0, 20, 20]


def test_a_part_of_a_part_is_found() -> None:
    prefixes = Prefixes(10**6)
    long = np.arange(100)
    put(prefixes, long)
    branch = np.concatenate([long[:50], 1000 + np.arange(30)])
    path = put(prefixes, branch)
    assert [use.count for use in path] == [50, 30]
    put(prefixes, np.concatenate([branch, 2000 + np.arange(30)]))
    assert [use.count for use in prefixes.find(np.concatenate([branch, 2000 + np.arange(40)]))] == [50, 30, 30]
    assert [use.count for use in prefixes.find(long[:60])] == [60]
    assert prefixes.find(long[: WORTH - 1]) == ()


def test_features_are_bounded() -> None:
    features = Features(3 * 40)
    for key in range(5):
        assert features.get(key) is None
        features.put(key, torch.zeros(10))
        assert features.bytes <= 120
        assert features.get(0) is not None, "what is used stays"
    assert [features.get(key) is not None for key in range(5)] == [True, False, False, True, True]
    assert (features.hits, features.misses) == (5 + 3, 5 + 2)
    tiny = Features(0)
    tiny.put(1, torch.zeros(1))
    assert tiny.bytes == 0 and tiny.get(1) is None


def test_equal_pictures_are_one_and_others_are_not() -> None:
    from llavakit.engine.cache import pixel_hash

    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    other = pixels.copy()
    other[2, 27, 27] ^= 1
    assert pixel_hash(pixels) == pixel_hash(pixels.copy()) != pixel_hash(other)


@pytest.mark.parametrize("wanted", [[0, 1, 2], [2, 0], [1, 1, 1], [4, 2, 0, 3], []])
def test_rows_move_only_where_they_must(wanted: list[int]) -> None:
    from llavakit.engine.batch import placed

    places = placed(wanted)
    assert sorted(places) == list(range(len(wanted)))
    for row in set(wanted):
        if row < len(wanted):
            assert places[wanted.index(row)] == row
