"""llama.cpp on the exported language models: the ids and the greedy answers of transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.rows.originals import conversations
from llavakit.chat.conversation import question
from llavakit.chat.render import render
from llavakit.chat.template import get_template
from llavakit.convert.run import convert
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import encode

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

QUESTIONS = [
    "What is it?",
    "How many red circles are there?  3\n",
    "Is caf\u00e9 \u4e2d\u6587 written?",
    "Yes or no: 12?",
]


@pytest.fixture(scope="module", params=["sentencepiece", "byte-level"])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "byte-level":
        return Path(request.getfixturevalue("checkpoint"))
    path = tmp_path_factory.mktemp("native") / "native"
    convert(request.getfixturevalue("llava"), path)
    return path


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_ids_and_greedy_answers_agree(native: Path, tmp_path: Path, kind: str) -> None:
    convert(native, tmp_path / "gguf", "gguf", kind=kind)  # type: ignore[arg-type]
    file = tmp_path / "gguf" / f"language-{kind}.gguf"
    theirs = llama_cpp.Llama(str(file), n_ctx=256, n_threads=1, verbose=False, logits_all=True)
    model, codec = checkpoints.load(native)
    engine = Engine(model, codec)
    for text in QUESTIONS:
        example = encode(question(text), codec, prompt=True)
        rendered = codec.tokenizer.decode(example.ids)
        ids = theirs.tokenize(rendered.encode(), add_bos=False, special=True)
        assert codec.tokenizer.encode(rendered, add_special_tokens=False) == ids
        theirs.reset()
        theirs.eval(example.ids.tolist())
        ours = torch.log_softmax(logits(model, example.ids.tolist()), -1)
        other = torch.log_softmax(torch.tensor(theirs.scores[len(example.ids) - 1]), -1)
        assert float((ours - other).abs().max()) < 0.05
        if kind == "f32":
            (pieces,) = engine.replies([example], Decoding(max_new_tokens=8))
            written = [token for piece in pieces for token in piece.ids]
            answer = []
            for token in theirs.generate(example.ids.tolist(), temp=0.0, repeat_penalty=1.0):
                if token == codec.tokenizer.eos_token_id or len(answer) == 8:
                    break
                answer.append(token)
            assert answer == written


def test_ids_of_500_conversations_agree(native: Path, tmp_path: Path) -> None:
    convert(native, tmp_path / "gguf", "gguf")
    theirs = llama_cpp.Llama(str(tmp_path / "gguf" / "language-f16.gguf"), vocab_only=True, verbose=False)
    tokenizer, template = checkpoints.load(native)[1].tokenizer, get_template("vicuna_v1")
    for conversation in conversations(3):
        text = render(conversation, template, tokenizer.bos_token, tokenizer.eos_token).text
        ours = tokenizer.encode(text, add_special_tokens=False)
        assert ours == theirs.tokenize(text.encode(), add_bos=False, special=True), text


def logits(model: object, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model.language_model(input_ids=torch.tensor([ids])).logits[0, -1]  # type: ignore[attr-defined]
    return out.float()
