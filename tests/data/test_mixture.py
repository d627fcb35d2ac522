"""The order of an epoch: a function of (seed, epoch), every record as often as its weight says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import Conversation, question
from llavakit.data.mixture import Mixture, SourceSpec
from tests.data.samples import records


class Numbered:
    """So many records, each of which says its number."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Conversation:
        return question(f"{self.name}{index}").answer("yes")


def mixture(sizes: dict[str, int], weights: dict[str, float], seed: int = 0) -> Mixture:
    return Mixture({name: Numbered(name, size) for name, size in sizes.items()}, weights, seed)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 0.3, 2.75]), min_size=4, max_size=4),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_every_record_as_often_as_its_weight_says(
    sizes: list[int], weights: list[float], seed: int, epoch: int
) -> None:
    named, weighed = {str(i): size for i, size in enumerate(sizes)}, {str(i): w for i, w in enumerate(weights)}
    assume(all(round(size * weighed[name]) for name, size in named.items()))
    mixed = mixture(named, weighed, seed)
    order = mixed.order(epoch)
    np.testing.assert_array_equal(order, mixture(named, weighed, seed).order(epoch))
    assert len(order) == len(mixed) == sum(round(size * weighed[name]) for name, size in named.items())
    times = Counter(map(tuple, order.tolist()))
    for number, (name, size) in enumerate(named.items()):
        counts = [times[number, record] for record in range(size)]
        assert sum(counts) == round(size * weighed[name])
        assert max(counts) - min(counts) <= 1


def test_epochs_and_seeds_differ_and_sources_are_mixed() -> None:
    mixed = mixture({"a": 50, "b": 50}, {"a": 0.5, "b": 1.0})
    first, second = mixed.order(0), mixed.order(1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, mixture({"a": 50, "b": 50}, {"a": 0.5, "b": 1.0}, seed=1).order(0))
    half = [set(order[order[:, 0] == 0][:, 1].tolist()) for order in (first, second)]
    assert len(half[0]) == len(half[1]) == 25 and half[0] != half[1], "a weight of 0.5 takes another half each epoch"
    assert len(set(first[:20, 0].tolist())) == 2
    assert mixed.at(1, 7).turns[0].text == "b7"


def test_an_empty_source_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(BadRequest, match=r"no records in captions \(0 at weight 1\)"):
        Mixture.of({"captions": SourceSpec(path=str(tmp_path / "none.json"))}, image_first=False)
    with pytest.raises(BadRequest, match=r"no records in a \(2 at weight 0\.1\)"):
        mixture({"a": 2, "b": 5}, {"a": 0.1, "b": 1.0})
    with pytest.raises(BadRequest, match="greater than 0"):
        SourceSpec.parse({"path": "a.json", "weight": 0})


def test_keep_and_cap_choose_records(tmp_path: Path) -> None:
    made = records(40, tmp_path)
    for number, record in enumerate(made):
        record["source"] = "even" if number % 2 == 0 else "odd"
    (tmp_path / "a.json").write_text(json.dumps(made))

    def ids(seed: int = 0, **spec: object) -> list[str]:
        chosen = SourceSpec.parse({"path": str(tmp_path / "a.json"), **spec})
        mixed = Mixture.of({"a": chosen}, image_first=False, seed=seed)
        return [mixed.at(0, n).id for n in range(len(mixed.sources["a"]))]

    assert ids(keep={"sources": ["odd"]}) == [f"r{n}" for n in range(1, 40, 2)]
    assert ids(keep={"pictured": False}) == [f"r{n}" for n in range(3, 40, 4)]
    assert ids(keep={"text": "It is (red|blue)", "pictured": True}) == ids(keep={"pictured": True, "without": "green"})
    assert ids(keep={"max_turns": 2}) == ids(keep={"pictured": True})
    assert len(ids(cap=7)) == 7 and ids(cap=7) == ids(cap=7) != ids(cap=7, seed=1) and len(ids(cap=700)) == 40
    with pytest.raises(BadRequest, match="is no regular expression"):
        SourceSpec.parse({"path": "a", "keep": {"text": "("}})
