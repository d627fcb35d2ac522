"""The same tokens as transformers, whatever the batch, the order, or the state of the caches."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from llavakit.engine.engine import Engine
from llavakit.engine.request import Request
from llavakit.engine.sample import GREEDY, Decoding
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.llava import Llava
from tests.engine.reference import Reference, mixed

COUNT, SHORT = 200, Decoding(max_new_tokens=9)


@pytest.fixture(scope="module")
def examples(parts: tuple[Llava, Codec]) -> list[Example]:
    return [encode(conversation, parts[1], prompt=True) for conversation in mixed(COUNT)]


@pytest.fixture(scope="module")
def theirs(examples: list[Example], reference: Reference) -> list[list[int]]:
    order = sorted(range(COUNT), key=lambda i: len(examples[i]))
    answers: list[list[int]] = [[] for _ in examples]
    for chosen in (order[start : start + 10] for start in range(0, COUNT, 10)):
        found = reference.generate([examples[i] for i in chosen], SHORT.max_new_tokens)
        for i, answer in zip(chosen, found, strict=True):
            answers[i] = answer
    assert len({tuple(answer) for answer in answers}) > 50, "the toy must not say the same thing to everything"
    assert len({len(answer) for answer in answers}) > 3, "some answers must end by themselves"
    return answers


def ask(
    engine: Engine, examples: list[Example], order: Sequence[int], waves: Sequence[int], keep: bool
) -> list[list[int]]:
    requests: list[Request] = []
    for wave in [*waves, len(order)]:
        # Some arrive while others are being answered.
        for i in order[len(requests) : len(requests) + wave]:
            requests.append(engine.request(examples[i], SHORT, [], keep=keep))
        engine.batch.step()
        assert len(engine.batch.rows) <= engine.batch_size
    while len(engine.batch):
        engine.batch.step()
    return [request.ids for request in requests]


def test_greedy_answers_are_token_identical(
    parts: tuple[Llava, Codec], examples: list[Example], theirs: list[list[int]]
) -> None:
    engine = Engine(*parts)
    assert ask(engine, examples, range(COUNT), [5, 50], keep=False) == theirs
    assert engine.features.misses == 12, "the tower runs once for each picture"
    assert engine.prefixes.hits > 2 * engine.prefixes.misses


@given(
    seed=st.integers(0, 99),
    count=st.sampled_from([10, 40]),
    places=st.sampled_from([1, 3, 7, 32]),
    limit=st.sampled_from([0, 60_000, 2**26]),
    waves=st.lists(st.integers(1, 30), max_size=8),
    keep=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_neither_batch_nor_order_nor_cache_changes_an_answer(
    parts: tuple[Llava, Codec],
    examples: list[Example],
    theirs: list[list[int]],
    seed: int,
    count: int,
    places: int,
    limit: int,
    waves: list[int],
    keep: bool,
) -> None:
    order = np.random.default_rng(seed).permutation(COUNT)[:count].tolist()
    engine = Engine(*parts, batch_size=places, cache_bytes=limit)
    assert ask(engine, examples, order, waves, keep) == [theirs[i] for i in order]
    assert engine.prefixes.bytes <= limit and engine.features.bytes <= limit // 4


@pytest.mark.parametrize(
    ("ours", "how"),
    [
        ({"num_beams": 5}, {"num_beams": 5}),
        ({"num_beams": 2, "length_penalty": 0.0}, {"num_beams": 2, "length_penalty": 0.0}),
        ({"num_beams": 5, "length_penalty": 2.0}, {"num_beams": 5, "length_penalty": 2.0}),
        ({"num_beams": 3, "length_penalty": -1.0}, {"num_beams": 3, "length_penalty": -1.0}),
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"num_beams": 3, "repetition_penalty": 1.5}, {"num_beams": 3, "repetition_penalty": 1.5}),
    ],
)
def test_beams_and_penalties_are_token_identical(
    parts: tuple[Llava, Codec], examples: list[Example], reference: Reference, ours: dict, how: dict
) -> None:
    if "num_beams" in how and Version(version("transformers")) < Version("5.19"):
        pytest.skip("transformers' own beams came out otherwise before 5.19")
    some = examples[:10]
    engine = Engine(*parts, batch_size=11)
    decoding = SHORT.evolve(ours)
    requests = [engine.request(example, decoding, []) for example in some]
    beside = engine.request(examples[20], GREEDY.evolve(max_new_tokens=40), [])
    while len(engine.batch):
        engine.batch.step()
    # By itself: padding disturbs the penalty, which then also falls on the pad token.
    wanted = [reference.generate([example], SHORT.max_new_tokens, **how)[0] for example in some]
    assert [request.ids for request in requests] == wanted
    assert beside.ids == reference.generate([examples[20]], 40)[0]
    plain = reference.generate(some, SHORT.max_new_tokens)
    assert wanted != plain, "the setting must make a difference"
