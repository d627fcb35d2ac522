"""Where the model looked: the very weights of transformers' eager attention, word by word."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai import OpenAI

from llavakit.chat.conversation import ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.load import load
from llavakit.image.square import square
from llavakit.model.encode import encode
from llavakit.serve.look import attention, look
from tests.serve.conftest import data_url, noise, user

PICTURES = noise(0), noise(1, (20, 50))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return load(checkpoint, device="cpu").engine


def test_equal_to_eager_attention(engine: Engine) -> None:
    asked = question("Which of them?", *map(ImageRef, PICTURES)).answer("A red star. \u4e2d!")
    example = encode(asked, engine.codec)
    model, codec = engine.model, engine.codec
    rows = np.arange(len(example) - 6, len(example) - 1)
    ids = torch.from_numpy(example.ids)
    image_at = (ids == codec.image_id).nonzero().squeeze(-1)
    with torch.inference_mode():
        found = attention(model, codec, example, rows)
        before = model.language_model.config._attn_implementation
        model.language_model.config._attn_implementation = "eager"
        out = model.language_model.base_model(
            inputs_embeds=model.embed(ids, torch.from_numpy(example.pixels), image_at)[None], output_attentions=True
        )
        model.language_model.config._attn_implementation = before
    layers = [weights[0].mean(0)[rows][:, image_at] for weights in out.attentions]  # the toy has two: none is cut
    expected = torch.stack(layers).mean(0).view(len(rows), 2, codec.image_tokens)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_words_and_views(engine: Engine) -> None:
    asked = question("Which of them?", *map(ImageRef, PICTURES)).answer("One.").ask("Sure?")
    before = list(engine.answer([asked]))
    seen = look(engine, asked.answer("A  red star: \u4e2d\u6587!"))
    assert [seen.text[word.start : word.end] for word in seen.words] == ["A", "red", "star:", "\u4e2d\u6587!"]
    side = int(engine.codec.image_tokens**0.5)
    assert [(view.rows, view.columns) for view in seen.views] == [(side, side)] * 2
    for word in seen.words:
        maps = [np.frombuffer(base64.b64decode(heat), np.uint8) for heat in word.heat]
        assert [len(heat) for heat in maps] == [side * side] * 2
        assert max(heat.max() for heat in maps) == 255 and 0 < word.share < 1
    assert list(engine.answer([asked])) == before, "the model is as it was"
    assert look(engine, asked).words == []


def test_over_the_wire(client: OpenAI, engine: Engine) -> None:
    import io

    from PIL import Image

    messages: list[dict[str, Any]] = [user("What?", data_url(PICTURES[0])), {"role": "assistant", "content": "A dog."}]
    found: Any = client.post("/look", body={"model": "toy", "messages": messages}, cast_to=object)
    assert len(found["words"]) == 2
    data = base64.b64decode(found["views"][0]["image"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, square(PICTURES[0], engine.codec.square))
