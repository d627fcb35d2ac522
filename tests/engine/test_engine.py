"""Answers: the same alone and in company, in pieces and whole, and never past a limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import Conversation, ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.load import load
from llavakit.engine.sample import Decoding
from llavakit.model.encode import encode

SHORT = Decoding(max_new_tokens=10)


def asked() -> list[Conversation]:
    """Nine questions of very different lengths: about one picture, about two, about none, and with a history."""
    rng = np.random.default_rng(0)
    pictures = [ImageRef(Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))) for _ in range(3)]
    return [
        *(question(f"What is in picture {n}?" + " Yes no." * 4 * n, picture) for n, picture in enumerate(pictures)),
        question("<image> or <image>?", pictures[0], pictures[1]),
        question("Say yes."),
        question("How many words? " * 9),
        question("And this?", pictures[2]).answer("A star.").ask("Sure?"),
        replace(question("Same?", pictures[1]).answer("No.").ask("<image>\nNow?"), images=(pictures[1], pictures[2])),
        question("TAXI"),
    ]


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return load(checkpoint, device="cpu").engine


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[str]:
    """Each answer by itself."""
    answers = [next(engine.answer([conversation], SHORT)) for conversation in asked()]
    assert len(set(answers)) > 4, "the toy must not say the same thing to everything"
    return answers


@given(order=st.permutations(range(9)), batch_size=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_answers_do_not_depend_on_batch_or_order(
    engine: Engine, alone: list[str], order: list[int], batch_size: int
) -> None:
    together = Engine(engine.model, engine.codec, batch_size)
    conversations = asked()
    assert list(together.answer([conversations[i] for i in order], SHORT)) == [alone[i] for i in order]


def test_pieces_join_to_the_answer(engine: Engine, alone: list[str]) -> None:
    for conversation, answer in zip(asked(), alone, strict=True):
        pieces = list(engine.stream(conversation, SHORT))
        assert "".join(pieces) == answer and all(pieces)


def test_a_character_of_many_tokens_comes_whole(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "h\u00e9llo \u4e2d\u6587 \U0001f642!"
    ids = engine.codec.tokenizer.encode(" " + text, add_special_tokens=False)
    assert len(ids) > len(text), "the toy writes these characters byte by byte"
    monkeypatch.setattr(engine, "tokens", lambda examples, how: ((0, token) for token in ids))
    pieces = list(engine.stream(asked()[4]))
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    assert "\U0001f642" in pieces


def test_the_seed_decides_what_is_sampled(engine: Engine) -> None:
    warm = Decoding(max_new_tokens=10, temperature=1.0, seed=1)
    first = list(engine.answer(asked(), warm))
    assert first == list(engine.answer(asked(), warm))
    assert first != list(engine.answer(asked(), warm.evolve(seed=2)))


def test_a_tiny_top_p_is_greedy(engine: Engine, alone: list[str]) -> None:
    nucleus = SHORT.evolve(temperature=2.0, top_p=1e-9)
    assert [next(engine.answer([conversation], nucleus)) for conversation in asked()] == alone


def test_no_more_tokens_than_asked_for(engine: Engine) -> None:
    examples = [encode(conversation, engine.codec, prompt=True) for conversation in asked()]
    for limit in (1, 4):
        rows = [row for row, _ in engine.tokens(examples, Decoding(max_new_tokens=limit))]
        assert max(rows.count(row) for row in range(len(examples))) == limit


def test_each_answer_ends_where_its_own_context_does(engine: Engine) -> None:
    conversations = asked()
    lengths = [len(encode(conversation, engine.codec, prompt=True)) for conversation in conversations]
    codec = replace(engine.codec, max_length=max(lengths) + 3)
    narrow = Engine(engine.model, codec)
    examples = [encode(conversation, codec, prompt=True) for conversation in conversations]
    written = [0] * len(examples)
    for row, _ in narrow.tokens(examples, SHORT):
        written[row] += 1
    assert written[lengths.index(max(lengths))] == 3
    for length, count in zip(lengths, written, strict=True):
        assert count <= codec.max_length - length
    assert list(narrow.answer(conversations, SHORT)) == [
        next(narrow.answer([conversation], SHORT)) for conversation in conversations
    ]
    with pytest.raises(BadRecord, match="the context holds 20"):
        list(Engine(engine.model, replace(codec, max_length=20)).answer(conversations))
