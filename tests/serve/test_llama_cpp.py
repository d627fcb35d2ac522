"""llama.cpp looks at pictures itself, through the mmproj file that we write, and speaks from 8 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llavakit.chat.conversation import ImageRef, question
from llavakit.convert.run import convert
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import encode
from tests import tiny
from tests.serve.conftest import noise

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from llavakit.serve.agree import answered, compared
from llavakit.serve.llama_cpp import LlamaCpp
from llavakit.serve.runners import ROUGH

HOW = Decoding(max_new_tokens=12)
ASKED = [question(f"What is it {n}?", ImageRef(noise(n, (40, 30 + n)))) for n in range(8)]


def made(vision: str, path: Path, language: str = "llama") -> tuple[Engine, Path]:
    """A tiny model whose rows 8 bits can hold, in our engine, and its directory."""
    from llavakit.chat.template import get_template
    from llavakit.model.build import ModelSpec, build
    from llavakit.model.encode import Codec

    tower = tiny.save_tower(vision, path / "vision")
    words = tiny.save_language(language, path / "language", hidden_size=64)
    model, tokenizer = build(ModelSpec(vision=str(tower), language=str(words)))
    codec = Codec(tokenizer, get_template("vicuna_v1"), model.square, model.image_tokens, 512)
    checkpoints.save(model, codec, path / "model")
    return Engine(*checkpoints.load(path / "model")), path / "model"


def test_siglip_is_seen_as_it_is(tmp_path: Path) -> None:
    engine, path = made("siglip", tmp_path)
    convert(path, tmp_path / "gguf", "gguf", kind="f32")
    theirs = LlamaCpp(tmp_path / "gguf", engine)
    ours = answered(engine, ASKED, HOW)
    row = compared("llama.cpp", "", ASKED, ours, [theirs.answer(asked, 12) for asked in ASKED], tie=ROUGH)
    assert theirs.sees and row.different == 0 and row.same >= 6, row
    assert len({answer.text for answer in ours}) > 4, "the pictures decide"


def test_the_fault_with_cls_is_still_there_and_our_features_help(tmp_path: Path) -> None:
    """When this fails, llama.cpp has mended its issue 25814: then the warning and the detour can go."""
    engine, path = made("clip", tmp_path)
    convert(path, tmp_path / "gguf", "gguf", kind="f32")
    ours = [text.strip() for text in engine.answer(ASKED, HOW)]
    answers = {}
    for sees in (True, False):
        theirs = LlamaCpp(tmp_path / "gguf", engine, sees)
        answers[sees] = [theirs.answer(asked, 12).strip() for asked in ASKED]
    assert answers[False] == ours and answers[True] != ours


@pytest.mark.parametrize("language", ["llama", "llama3", "qwen3"])
def test_eight_bits_and_every_rope(tmp_path: Path, language: str) -> None:
    engine, path = made("siglip", tmp_path, language)
    example = encode(question("How many red circles are there? " * 12), engine.codec, prompt=True)
    ids = torch.from_numpy(example.ids)[None]
    with torch.inference_mode():
        expected = torch.log_softmax(engine.model.language_model(input_ids=ids).logits[0, -1], -1)
    for kind, bound in (("f32", 1e-4), ("q8_0", 0.3)):
        convert(path, tmp_path / kind, "gguf", kind=kind)  # type: ignore[arg-type]
        theirs = LlamaCpp(tmp_path / kind, engine)
        theirs.read(question("How many red circles are there? " * 12))
        found = torch.log_softmax(torch.from_numpy(theirs.logits()), -1)
        assert float((found - expected).abs().mean()) < bound, kind
        assert theirs.answer(ASKED[0], 4)
