"""A talk with history: every turn is asked with all that came before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llavakit.chat.conversation import Conversation, ImageRef, Turn, question
from llavakit.engine.load import Assistant, load
from llavakit.engine.request import Piece, Request
from llavakit.engine.sample import Decoding
from llavakit.model.encode import Example, encode

SHORT = Decoding(max_new_tokens=6)
RED, BLUE = Image.new("RGB", (40, 30), (220, 30, 30)), Image.new("RGB", (30, 30), (30, 30, 220))


@pytest.fixture(scope="module")
def assistant(checkpoint: Path) -> Assistant:
    return load(checkpoint, device="cpu")


def test_precision_is_chosen(checkpoint: Path, assistant: Assistant) -> None:
    fast = load(checkpoint, device="cpu", precision="fast")
    assert assistant.engine.model.language_model.dtype == torch.float32
    assert fast.engine.model.language_model.dtype == torch.bfloat16
    assert isinstance(fast.ask(None, "Hello"), str)


@pytest.fixture()
def said(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> list[Example]:
    """Every prompt that reaches the model; the answers are "One.", "Two.", nothing, "Four."."""
    prompts: list[Example] = []
    answers = iter(["One.", "Two.", "", "Four."])
    engine = assistant.engine

    def request(example: Example, how: Decoding, pieces: list[Piece], **_: Any) -> Request:
        prompts.append(example)
        if answer := next(answers):
            pieces.append(Piece(answer, []))
        done = Request(example, how, engine.codec, pieces.append)
        done.finish = "stop"
        return done

    monkeypatch.setattr(engine, "request", request)
    return prompts


def test_a_turn_sees_all_before_it(assistant: Assistant, said: list[Example]) -> None:
    codec = assistant.engine.codec
    chat = assistant.chat(RED)
    assert "".join(chat.say("What is it?")) == "One."
    first = question("What is it?", ImageRef(RED)).answer("One.")
    chat.show(BLUE)
    assert "".join(chat.say("And this?")) == "Two."
    turns = (*first.turns, Turn("user", "<image>\nAnd this?"))
    second = Conversation(turns, (ImageRef(RED), ImageRef(BLUE)))
    expected = encode(second, codec, prompt=True)
    np.testing.assert_array_equal(said[1].ids, expected.ids)
    np.testing.assert_array_equal(said[1].pixels, expected.pixels)
    assert chat.conversation == second.answer("Two.")


def test_silence_leaves_no_trace(assistant: Assistant, said: list[Example]) -> None:
    chat = assistant.chat(RED)
    assert ["".join(chat.say("a")), "".join(chat.say("b"))] == ["One.", "Two."]
    before = chat.conversation
    assert list(chat.say("c")) == [] and chat.conversation == before
    assert "".join(chat.say("d")) == "Four."
    assert [turn.text for turn in chat.conversation.turns[4:]] == ["d", "Four."]


def test_an_unfinished_answer_leaves_no_trace(assistant: Assistant) -> None:
    chat = assistant.chat(RED, SHORT)
    pieces = chat.say("What?")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert chat.conversation.turns == () and chat.waiting == (ImageRef(RED),)


def test_chat_ask_and_answer_agree(assistant: Assistant) -> None:
    answer = assistant.ask(RED, "What is it?", SHORT)
    assert "".join(assistant.chat(RED, SHORT).say("What is it?")) == answer
    assert list(assistant.answer([question("What is it?", ImageRef(RED))], SHORT)) == [answer]


def test_a_picture_comes_as_path_bytes_or_image(assistant: Assistant, tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    path = tmp_path / "red.png"
    given = [RED, path, str(path), path.read_bytes()]
    assert len({assistant.ask(image, "What is it?", SHORT) for image in given}) == 1
    assert assistant.ask(None, "Say yes.", SHORT)
