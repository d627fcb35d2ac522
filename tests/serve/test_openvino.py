"""OpenVINO under our engine: the same greedy answers as without it, alone and in a crowd, and through the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import ImageRef, question
from llavakit.cli import main
from llavakit.engine.load import Assistant, load
from llavakit.engine.sample import Decoding
from tests.serve.conftest import data_url, noise, process, user


def test_where_it_is_not_installed_the_one_command_is_said(checkpoint: Path) -> None:
    code = "import sys; sys.modules['openvino'] = None; from llavakit.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "serve", str(checkpoint), "--engine", "openvino", "--port", "0"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.strip().endswith("pip install 'llavakit[openvino]'")


def test_flags_of_another_engine_are_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(checkpoint), "--engine", "openvino", "--engine-python", "python"]) == 2
    assert "--engine-python is for --engine vllm" in capsys.readouterr().err


@pytest.fixture(scope="module")
def both(checkpoint: Path) -> tuple[Assistant, Assistant]:
    """The same model in our engine and in OpenVINO."""
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    from llavakit.serve.openvino import load as load_openvino

    return load(checkpoint), Assistant(load_openvino(checkpoint, batch_size=3))


@pytest.mark.parametrize(
    "how",
    [
        Decoding(max_new_tokens=12),
        Decoding(max_new_tokens=8, num_beams=3),
        Decoding(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=3),
    ],
)
def test_a_crowd_of_questions(both: tuple[Assistant, Assistant], how: Decoding) -> None:
    """Of different lengths and pictures, some shared, in a batch that rows leave and enter at any time."""
    asked = [
        question(f"What is it {n}? {'very ' * (n % 7)}much", *([ImageRef(noise(n // 3))] if n % 4 else []))
        for n in range(20)
    ]
    ours, theirs = (list(assistant.answer(asked, how)) for assistant in both)
    assert ours == theirs and len(set(ours)) > 10


def test_a_talk_goes_on(both: tuple[Assistant, Assistant]) -> None:
    said = []
    for assistant in both:
        talk = assistant.chat(noise(1), Decoding(max_new_tokens=40))
        said.append(["".join(talk.say(text)) for text in ("What is it?", "And of which colour?", "Yes or no?")])
    assert said[0] == said[1] and all(said[0])
    assert both[1].engine.prefixes.hits > 0, "what was said before is not computed again"


def test_the_same_client(checkpoint: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    from openai import OpenAI

    ours = load(checkpoint)
    with process(checkpoint, "--name", "toy", "--engine", "openvino") as (base, _):
        client = OpenAI(base_url=f"{base}/v1", api_key="none", timeout=120)
        for number in range(6):
            message = user("What is it?", data_url(noise(number)))
            reply = client.chat.completions.create(model="toy", messages=[message], max_tokens=12, temperature=0)
            expected = ours.ask(noise(number), "What is it?", Decoding(max_new_tokens=12))
            assert reply.choices[0].message.content == expected


def test_a_language_model_of_another_build_is_refused(tmp_path: Path, backbones: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    from llavakit.chat.template import get_template
    from llavakit.model.build import ModelSpec, build
    from llavakit.model.checkpoint import save
    from llavakit.model.encode import Codec
    from llavakit.serve.openvino import load as load_openvino
    from tests.tiny import save_language

    spec = ModelSpec(vision=str(backbones / "clip"), language=str(save_language("gemma", tmp_path / "language")))
    model, tokenizer = build(spec)
    codec = Codec(tokenizer, get_template("vicuna_v1"), model.square, model.image_tokens, 512)
    save(model, codec, tmp_path / "model")
    with pytest.raises(BadRequest, match=r"built like Llama's.*--engine builtin"):
        load_openvino(tmp_path / "model")
