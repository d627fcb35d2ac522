"""``llavakit convert`` as a person uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavakit.cli import main
from tests.cli.test_verbs import llavakit
from tests.convert import originals


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original")
    return originals.llava(path / "llava", originals.clip(path / "clip"), originals.pieces_model())


def test_ask_names_the_command_and_the_command_works(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(original), "hi"]) == 2
    message = capsys.readouterr().err
    assert message.strip().endswith(f"make it a native one: llavakit convert {original} NEW_DIRECTORY")
    done = llavakit("convert", original, tmp_path / "native")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "logits differ from the original's by" in done.stderr
    assert main(["ask", str(tmp_path / "native"), "hi", "--max-new-tokens", "3"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{original}", "{there}"], "exists already"),
        (["nowhere", "new"], "no checkpoint directory at nowhere"),
        (["{original}", "new", "--template", "vicuna_v2"], "did you mean 'vicuna_v1'"),
        (["{original}", "new", "--to", "gguff"], "invalid choice"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    named = {"{original}": original, "{there}": tmp_path / "there"}
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *(str(named.get(word, word)) for word in words)]) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not (tmp_path / "new").exists()
