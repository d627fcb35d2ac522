"""What small backbones start from and learn by: neighbours, regions, lessons, answers of any length alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.base.files import JsonlLog
from llavakit.chat.conversation import Conversation, Turn
from llavakit.data.mixture import SourceSpec
from llavakit.model.encode import Example
from llavakit.recipes.demo import recipe
from llavakit.train.backbones import pretrain
from llavakit.train.backbones_clip import _moved, _region_moved
from llavakit.train.backbones_language import _by_answer, _rows, pretrain_language, tokenizer_for
from llavakit.train.backbones_regions import Region, cells, regions_of
from llavakit.train.backbones_spec import Backbones, Language, Lesson, Tower
from llavakit.train.start_language import LOUD, start_language
from llavakit.train.start_tower import start_tower
from llavakit.train.told import told_picture
from llavakit.world.build import build
from tests import toys


def test_heads_of_the_first_layers_begin_by_looking_at_one_neighbour_each() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 64, "num_attention_heads": 8, "num_hidden_layers": 3}
    config = CLIPVisionConfig(**sizes, image_size=56, patch_size=7, attn_implementation="eager")
    model = CLIPVisionModel(config).eval()
    pictures = torch.rand(32, 3, 56, 56)
    start_tower(getattr(model, "vision_model", model), pictures)
    with torch.no_grad():
        attention = model(pixel_values=pictures, output_attentions=True).attentions[1][:, :, 1:, 1:]
    around = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]
    here = 3 * 8 + 4
    for head, (x, y) in enumerate(around):
        looked = attention[:, head, here].mean(0)
        assert looked.argmax() == here + 8 * y + x and looked.max() > 0.3


def test_words_begin_by_finding_the_patch_that_holds_them_all() -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    held = [(10, 20, 30), (10, 21, 31), (11, 20, 32), (11, 21, 33)]
    found = 0
    for seed in range(8):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=40, attn_implementation="eager")).eval()
        start_language(model, range(10, 40))
        table = model.get_input_embeddings().weight.detach()
        picture = torch.stack([table[list(words)].sum(0) for words in held for _ in range(3)] + [torch.zeros(256)] * 12)
        picture[:, 0] = LOUD
        for number, (colour, shape, _) in enumerate(held):
            asked = torch.cat([picture, table[[1, 2, colour, shape, 3]]])[None]
            with torch.no_grad():
                attention = model(inputs_embeds=asked, output_attentions=True).attentions[1]
            looked = attention[0, :, -1, :12].mean(0).view(4, 3).sum(1)
            found += int(looked.argmax()) == number
    assert found >= 26, f"{found} of 32, of which chance finds 8"


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
    found = cells((x, y, min(1, x + width), min(1, y + height)), side)
    assert found and len(set(found)) == len(found) and all(0 <= cell < side * side for cell in found)


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
    assert _by_answer(torch.tensor([3, 9, 20, 21, 22, 23])).tolist() == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]


def test_a_lesson_begins_when_its_share_of_the_steps_does() -> None:
    def example(word: int) -> Example:
        ids = np.full(10, word, dtype=np.int64)
        return Example(ids, ids.copy(), np.empty((0, 3, 1, 1), dtype=np.uint8))

    lessons = [(0.0, 1.0, [example(5)] * 3), (0.5, 3.0, [example(6)] * 3)]
    rows = [[int(e.ids[0]) for e in row] for row in _rows(lessons, 800, 10, np.random.default_rng(0))]
    assert len(rows) == 10 and all(set(row) == {5} for row in rows[:5])
    assert all(row.count(5) < row.count(6) < 80 for row in rows[5:])  # one to three


def test_a_language_model_starts_by_looking_behind_the_same_word() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 672, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=600, **sizes, attn_implementation="eager"))
    start_language(model, range(100, 140))
    said = torch.arange(200, 230)[torch.randperm(30)]
    with torch.no_grad():
        _, second = model(torch.cat([torch.tensor([1]), said, said])[None], output_attentions=True).attentions
    again = torch.arange(31, 61)
    assert (second[0, 2:, again, again - 29].mean(1) > 0.6).all()


def test_words_begin_alike_that_differ_by_a_capital_or_a_space() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, **sizes))
    start_language(
        model, [7], {"\u0120red": 7, "Red": 8, "\u0120Red": 9, "\u0120ring": 10, "Ring": 11, "A": 12, "a": 13}
    )
    table = model.get_input_embeddings().weight[:, 1:].detach()
    near = torch.nn.functional.cosine_similarity(table[:, None], table, dim=-1)
    assert min(near[7, 8], near[7, 9], near[8, 9], near[10, 11]) > 0.7
    assert max(near[7, 10], near[8, 11], near[12, 13]) < 0.5
    assert torch.allclose(
        table[8] - table[7], table[11] - table[10], atol=1e-5
    )  # capital and no space, whatever the word


def test_a_told_picture_says_what_lies_where() -> None:
    torch.manual_seed(0)
    embedding = torch.randn(30, 64)
    embedding[:, 0] = 4.0
    star, ring = Region((0.0, 0.0, 0.5, 0.5), [1, 7, 8]), Region((0.5, 0.5, 1.0, 1.0), [1, 9])
    picture = torch.stack([told_picture([star, ring], 4, embedding) for _ in range(40)]).mean(0)
    likest = (picture[:, 1:] @ embedding[:, 1:].T).topk(2).indices.sort().values
    assert [likest[cell].tolist() for cell in (0, 1, 4, 5)] == [[7, 8]] * 4
    assert all(9 in likest[cell] for cell in (10, 11, 14, 15))
    assert picture[:, 0].tolist() == pytest.approx([4.0] * 16)
    assert picture[2, 1:].abs().mean() < 0.3  # nothing is there


def test_a_conversation_about_a_picture_that_nothing_tells_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    records = [
        {
            "id": "0",
            "image": "a.jpg",
            "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A star"}],
        }
    ]
    (tmp_path / "talk.json").write_text(json.dumps(records))
    talk = SourceSpec(path=str(tmp_path / "talk.json"))
    spec = Backbones(
        captions=talk,
        conversations=(Lesson(data=talk),),
        language=Language(vocabulary=300, width=32, heads=2, layers=1),
    )
    with pytest.raises(BadRequest, match="has a picture, and nothing tells what it shows"):
        pretrain_language(
            spec, ["A star"], tokenizer_for(spec, ["A star"]), tmp_path / "out", JsonlLog(tmp_path / "m.jsonl")
        )


@pytest.mark.parametrize(("image", "message"), [({"image": "a.jpg"}, "no such file"), ({}, "has no picture")])
def test_captions_without_their_pictures_are_refused_at_once(
    tmp_path: Path, image: dict[str, str], message: str
) -> None:
    asked = "<image>\nWhat?" if image else "What?"
    record = {"id": "0", "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": "A star"}]}
    (tmp_path / "captions.json").write_text(json.dumps([record | image]))
    spec = Backbones(captions=SourceSpec(path=str(tmp_path / "captions.json"), images=str(tmp_path)))
    with pytest.raises(BadRecord, match=message):
        pretrain(spec, tmp_path / "out")
    assert not (tmp_path / "out" / "language").exists()


def test_backbones_trained_side_by_side_are_those_trained_in_turn(tmp_path) -> None:  # type: ignore[no-untyped-def]
    build(tmp_path / "world", 0, 12, 8, 48, 1, conversations=6, questions_per_ingredient=1, benchmark_questions=1)
    spec = recipe(str(tmp_path / "world")).backbones
    assert spec is not None
    spec = spec.evolve(
        tower=Tower(image_size=28, width=64, layers=3, heads=4, batch_size=4, steps=2),
        language=Language(vocabulary=400, width=64, heads=2, layers=2, batch_tokens=300, steps=4),
    )
    pretrain(spec, tmp_path / "turn")
    # In a process of its own: to change the number of threads changes the last bits of what is computed after it.
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    work = (
        "import pathlib, sys, torch; from llavakit.train.backbones import pretrain; "
        "from llavakit.train.backbones_spec import Backbones; here = pathlib.Path(sys.argv[1]); "
        "pretrain(Backbones.model_validate_json((here / 'spec.json').read_text()), here / 'side'); "
        "assert torch.get_num_threads() == 2"
    )
    subprocess.run([sys.executable, "-c", work, str(tmp_path)], check=True, env=os.environ | {"OMP_NUM_THREADS": "2"})
    for file in ("language/model.safetensors", "clip/model.safetensors"):
        one, other = load_file(tmp_path / "turn" / file), load_file(tmp_path / "side" / file)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("width", "heads"), [(64, 8), (64, 3)])
def test_heads_too_small_for_the_start_are_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"width {width} must be {heads} heads x 16"):
        Language(width=width, heads=heads)
