"""encode: ``<image>`` at its final length, cuts counted or refused, the prompt the beginning of the training ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import Conversation, ImageRef, Turn, question
from llavakit.chat.labels import IGNORE
from llavakit.chat.template import TEMPLATES, get_template
from llavakit.image.anyres import AnyRes
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import Codec, Example, encode

PICTURE = ImageRef(Image.new("RGB", (40, 30), (200, 30, 30)))
N = 16


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> Codec:
    return checkpoints.load(checkpoint)[1].using(get_template("vicuna_v1"))


def supervised_text(example: Example, codec: Codec) -> str:
    return str(codec.tokenizer.decode(example.labels[example.labels != IGNORE]))


def test_image_becomes_its_n_ids_in_its_place(codec: Codec) -> None:
    assert codec.image_tokens == N
    example = encode(question("What is it?", PICTURE).answer("A circle."), codec)
    (at,) = np.nonzero(example.ids == codec.image_id)
    assert at.tolist() == list(range(at[0], at[0] + N))
    decode = codec.tokenizer.decode
    assert decode(example.ids[: at[0]]).endswith("USER: ")
    assert decode(example.ids[at[-1] + 1 :]) == "\nWhat is it? ASSISTANT: A circle.</s>"
    assert supervised_text(example, codec) == " A circle.</s>"
    assert example.pixels.shape == (1, 3, 28, 28) and example.pixels.dtype == np.uint8
    assert example.supervised == (example.labels != IGNORE).sum()


def test_fast_decoding_is_the_codec_s_choice_and_never_of_tiles(codec: Codec, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg")
    asked = question("What?", ImageRef(tmp_path / "a.jpg")).answer("A thing.")
    exact, fast = (encode(asked, codec.seeing("pad", decode)) for decode in ("exact", "fast"))  # type: ignore[arg-type]
    difference = np.abs(exact.pixels.astype(int) - fast.pixels)
    assert 0 < difference.mean() < 0.5 and np.array_equal(exact.ids, fast.ids)
    tiled = codec.seeing(AnyRes(grids="hd"))  # type: ignore[arg-type]
    counted = replace(tiled, square=tiled.square.evolve(decode="fast"))
    assert len(encode(asked, counted)) == len(encode(asked, tiled)), "tokens come from the true size"


def test_many_images_and_none(codec: Codec) -> None:
    other = ImageRef(Image.new("RGB", (30, 50), (10, 30, 200)))
    turns = (Turn("user", "<image>\nand <image>?"), Turn("assistant", "No"))
    turns = (*turns, Turn("user", "<image>?"), Turn("assistant", "Yes"))
    three = encode(Conversation(turns, (PICTURE, other, PICTURE)), codec)
    assert (three.ids == codec.image_id).sum() == 3 * N and three.pixels.shape[0] == 3
    assert np.array_equal(three.pixels[0], three.pixels[2]) and not np.array_equal(three.pixels[0], three.pixels[1])
    assert supervised_text(three, codec) == " No</s> Yes</s>"
    none = encode(question("Say yes.").answer("Yes"), codec)
    assert none.pixels.shape == (0, 3, 28, 28) and codec.image_id not in none.ids


words = st.text(alphabet="abc YS.,:'\u00e9\u4e2d", min_size=1, max_size=12).filter(lambda text: text.strip())


@pytest.mark.parametrize("name", list(TEMPLATES))
@given(said=st.lists(words, min_size=2, max_size=6), answer=words.map(str.strip))
@settings(max_examples=20, deadline=None)
def test_the_prompt_is_the_beginning_of_the_training_ids(codec: Codec, name: str, said: list[str], answer: str) -> None:
    asked = question(said[0], PICTURE)
    for turn in range(1, len(said) - 1, 2):
        asked = asked.answer(said[turn]).ask(said[turn + 1])
    using = codec.using(get_template(name))
    prompt, whole = encode(asked, using, prompt=True), encode(asked.answer(answer), using)
    np.testing.assert_array_equal(prompt.ids, whole.ids[: len(prompt)])
    assert (prompt.labels == IGNORE).all() and np.array_equal(prompt.pixels, whole.pixels)
    assert (whole.labels[len(prompt) :] != IGNORE).any(), "what follows the prompt is what is learnt"


def test_a_long_sample_is_cut_and_the_cut_is_counted(codec: Codec) -> None:
    conversation = question("What?", PICTURE).answer("A red circle. " * 10)
    whole = encode(conversation, codec)
    example = encode(conversation, replace(codec, max_length=len(whole) - 7))
    assert example.cut == 7 and len(example) == len(whole) - 7 and whole.cut == 0
    np.testing.assert_array_equal(example.ids, whole.ids[:-7])
    np.testing.assert_array_equal(example.labels, whole.labels[:-7])


def test_a_cut_that_spoils_the_sample_is_refused_by_name(codec: Codec) -> None:
    conversation = replace(question("What?", PICTURE).answer("Red."), id="r5", source="a.json record 4")
    prompt = encode(question("What?", PICTURE), codec, prompt=True)
    last_image_id = int(np.nonzero(prompt.ids == codec.image_id)[0][-1])
    with pytest.raises(BadRecord, match=r"a\.json record 4 id 'r5': is over \d+ tokens and the cut falls into an imag"):
        encode(conversation, replace(codec, max_length=last_image_id))
    with pytest.raises(BadRecord, match=rf"'r5': nothing supervised is left after the cut at {len(prompt)}"):
        encode(conversation, replace(codec, max_length=len(prompt)))
    with pytest.raises(BadRecord, match="nothing to learn"):
        encode(question("What?", PICTURE), codec)


def test_a_question_longer_than_the_context_is_refused_with_numbers(codec: Codec) -> None:
    asked = question("What?", PICTURE)
    length = len(encode(asked, codec, prompt=True))
    with pytest.raises(
        BadRecord, match=rf"takes {length} tokens \(1 image\(s\) of 16\) and the context holds {length}"
    ):
        encode(asked, replace(codec, max_length=length), prompt=True)
    assert len(encode(asked, replace(codec, max_length=length + 1), prompt=True)) == length
