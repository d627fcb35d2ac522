"""What small backbones start from and learn by: neighbours, regions, lessons, answers of any length alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModel

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import Conversation, Turn
from llavakit.model.encode import Example
from llavakit.train.backbones_clip import _moved, _region_moved
from llavakit.train.backbones_language import _batches, _by_answer
from llavakit.train.backbones_regions import Region, _cells, regions_of
from llavakit.train.start_tower import start_tower
from tests import toys


def test_heads_of_the_first_layers_begin_by_looking_at_one_neighbour_each() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 64, "num_attention_heads": 8, "num_hidden_layers": 3}
    config = CLIPVisionConfig(**sizes, image_size=56, patch_size=7, attn_implementation="eager")
    model = CLIPVisionModel(config).eval()
    pictures = torch.rand(32, 3, 56, 56)
    start_tower(getattr(model, "vision_model", model), pictures)
    with torch.no_grad():
        attention = model(pixel_values=pictures, output_attentions=True).attentions[0][:, :, 1:, 1:]
    around = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]
    here = 3 * 8 + 4
    for head, (x, y) in enumerate(around):
        looked = attention[:, head, here].mean(0)
        assert looked.argmax() == here + 8 * y + x and looked.max() > 0.3


def test_regions_are_read_from_llavas_format(backbones) -> None:  # type: ignore[no-untyped-def]
    _, codec = toys.build_toy(backbones)
    asked = Turn("user", "Provide a short description for this region. [0.1, .25, 0.50, 1.0]")
    (region,) = regions_of(Conversation((asked, Turn("assistant", "Red star"))), codec.tokenizer)
    assert region.box == (0.1, 0.25, 0.5, 1.0)
    assert codec.tokenizer.decode(region.ids) == f"{codec.tokenizer.bos_token} red star"
    with pytest.raises(BadRecord, match="names no box"):
        regions_of(Conversation((Turn("user", "What?"), Turn("assistant", "A star"))), codec.tokenizer)


shares = st.floats(0, 1)


@given(shares, shares, shares, shares, st.integers(1, 24))
def test_a_region_has_patches_within_the_picture(x: float, y: float, width: float, height: float, side: int) -> None:
    cells = _cells((x, y, min(1, x + width), min(1, y + height)), side)
    assert cells and len(set(cells)) == len(cells) and all(0 <= cell < side * side for cell in cells)


def test_boxes_move_with_the_picture() -> None:
    pictures = torch.zeros(1, 3, 112, 112)
    pictures[..., 40:48, 60:68] = 1
    for seed in range(5):
        moved, across, down = _moved(pictures, np.random.default_rng(seed))
        x1, y1, x2, y2 = (
            round(112 * v)
            for v in _region_moved(Region((60 / 112, 40 / 112, 68 / 112, 48 / 112), []), across, down).box
        )
        assert moved[0, 0, y1:y2, x1:x2].min() == 1 and moved.sum() == 3 * 64


def test_a_long_answer_counts_as_much_as_a_short_one() -> None:
    assert _by_answer(torch.tensor([3, 4, 9, 20, 21, 22, 23])).tolist() == [0.5, 0.5, 1.0, 0.25, 0.25, 0.25, 0.25]


def test_a_lesson_begins_when_its_share_of_the_steps_does() -> None:
    def example(word: int) -> Example:
        ids = np.full(10, word, dtype=np.int64)
        return Example(ids, ids.copy(), np.empty((0, 3, 1, 1), dtype=np.uint8))

    lessons = [[example(5)] * 3, [example(6)] * 3]
    rows = [set(batch.ids.tolist()) for batch in _batches(lessons, 80, 10, 99, np.random.default_rng(0))]
    assert len(rows) == 10 and all(row == {5} for row in rows[:5])
    assert all(6 in row for row in rows[5:]) and any(5 in row for row in rows[5:])
