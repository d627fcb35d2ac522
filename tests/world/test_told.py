"""What is told of a scene can be understood again: everything but the exact positions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest
from llavakit.world.ask.describe import caption_text, detail_text
from llavakit.world.build import build
from llavakit.world.sample import sample_scene
from llavakit.world.told import told, understood


@given(st.integers(0, 10_000), st.sampled_from(["train", "test"]))
def test_understood_as_it_was_told(index: int, split: str) -> None:
    scene = sample_scene(1, index, split)
    record = told(scene, "1", "1.jpg")
    again = understood("\n".join(record["captions"]))
    assert caption_text(again) == caption_text(scene)
    assert detail_text(again) == detail_text(scene)
    assert len(record["instances"]) == len(scene.items)
    for instance in record["instances"]:
        x1, y1, x2, y2 = instance["bbox"]
        assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1


@pytest.mark.parametrize("text", ["", "A dog in a garden.", "The word TAXI at the top left."])
def test_other_words_are_not_understood(text: str) -> None:
    with pytest.raises(BadRequest, match="miniature world"):
        understood(text)


def test_a_world_comes_with_its_captions(tmp_path) -> None:  # type: ignore[no-untyped-def]
    build(tmp_path / "w", 3, 4, 8, 32, 1, conversations=1, questions_per_ingredient=1, benchmark_questions=1)
    records = [json.loads(line) for line in (tmp_path / "w" / "captions.jsonl").read_text().splitlines()]
    align = json.loads((tmp_path / "w" / "align.json").read_text())
    assert [record["image"] for record in records] == [record["image"] for record in align]
    assert [record["captions"][0] for record in records] == [r["conversations"][1]["value"] for r in align]
