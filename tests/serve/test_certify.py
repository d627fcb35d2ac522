"""The certificate over engines: equal where they are equal, and a difference is found, weighed and written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llavakit.cli import main
from llavakit.convert.card import card
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint as checkpoints
from llavakit.serve.agree import Answered, answered, compared, questions
from llavakit.serve.certify import certify
from tests.serve.conftest import noise


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    for number in range(3):
        noise(number, (40 - number, 30 + 2 * number)).save(path / f"{number}.png")
    return path


def test_engines_agree_and_the_card_says_so(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    model = shutil.copytree(checkpoint, tmp_path / "model")
    words = ["--images", str(photos), "--questions", "24", "--engines", "transformers,openvino,vllm"]
    assert main(["certify", str(model), *words, "--max-new-tokens", "12", "--vllm-python", "/bin/false"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["transformers", "openvino", "vllm"]
    assert "24 of 24 the same" in lines[2] and "24 of 24 the same" in lines[3] and "pip install vllm" in lines[4]
    found = json.loads((model / "engines.json").read_text())
    assert [engine["same"] for engine in found["engines"]] == [24, 24, 0]
    assert "| transformers |" in card(model, "me/mine") and "the same 24 questions" in card(model, "me/mine")


def test_another_model_is_found_out(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers loads the files; ours are read, and then changed by little."""
    real = checkpoints.load

    def changed(*words: object) -> object:
        model, codec = real(*words)  # type: ignore[arg-type]
        with torch.no_grad():
            model.multi_modal_projector.linear_2.bias += 0.5
        return model, codec

    monkeypatch.setattr(checkpoints, "load", changed)
    (row,), asked, _ = certify(checkpoint, photos, 12, 12, ["transformers"])
    assert row.different > 0 and row.same + row.ties + row.different == asked == 12
    first = row.differences[0]
    assert first.ours != first.theirs and first.margin >= 0 and first.image.endswith(".png")
    assert f"{row.different} different" in row.said


def test_a_tie_is_told_from_a_difference(photos: Path) -> None:
    asked = questions(photos, 3)
    sure, unsure = ((3, 2.0), (6, 2.0), (9, 0.5)), ((3, 2.0), (6, 1e-5), (9, 0.5))
    ours = [Answered("abcdefghi", sure), Answered("abcdefghi", unsure), Answered(" abcdef\ufffd", sure)]
    row = compared("some", "1", asked, ours, ["abcXefghi", "abcXefghi", "abcdef"])
    assert (row.same, row.ties, row.different) == (1, 1, 1)
    assert [difference.margin for difference in row.differences] == [2.0, 1e-5]
    assert compared("some", "1", asked[:1], ours[:1], ["abcX"], tie=3.0).ties == 1
    cut = [Answered("abc\ufffd\x1c\ufffd", sure)]
    assert compared("some", "1", asked[:1], cut, ["abc"]).same == 1, "a character cut in two"
    early = compared("some", "1", asked[:1], [Answered("abcdefghi", unsure)], ["abX"])
    assert early.different == 1, "the tie comes after the place where they part"


def test_questions_are_different_and_always_the_same(photos: Path) -> None:
    asked = questions(photos, 30)
    assert len({(c.turns[0].text, str(c.images[0])) for c in asked}) == 30 and asked == questions(photos, 30)


def test_margins_are_those_of_the_model(checkpoint: Path, photos: Path) -> None:
    model, codec = checkpoints.load(checkpoint)
    (answer,) = answered(Engine(model, codec), questions(photos, 1), Decoding(max_new_tokens=5))
    assert len(answer.steps) == 5 and answer.steps[-1][0] == len(answer.text)
    assert all(margin >= 0 for _, margin in answer.steps)


def test_too_few_pictures(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", str(checkpoint), "--images", str(tmp_path)]) == 2
    assert "50 questions need at least 5" in capsys.readouterr().err
    assert main(["certify", str(checkpoint), "--images", str(tmp_path), "--engines", "vlm"]) == 2
    assert "did you mean 'vllm'" in capsys.readouterr().err
