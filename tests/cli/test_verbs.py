"""The verbs as a person uses them: a process, its output, its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def llavakit(*words: object, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llavakit", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.effect_noise((60, 40), 80).convert("RGB").save(path)
    return path


def test_ask_prints_the_answer_and_nothing_else(checkpoint: Path, photo: Path) -> None:
    from llavakit import load

    done = llavakit("ask", checkpoint, "--image", photo, "What is it?", "--max-new-tokens", 8)
    assert (done.returncode, done.stderr) == (0, "")
    from llavakit.engine.sample import Decoding

    assert done.stdout == load(checkpoint).ask(photo, "What is it?", Decoding(max_new_tokens=8)) + "\n"


def test_chat_keeps_its_history_and_survives_a_wrong_file(checkpoint: Path, photo: Path) -> None:
    said = f"Hello?\n/image {photo}\nWhat is it?\n/image gone.jpg\n/reset\nHello?\n/nonsense\n/quit\n"
    done = llavakit("chat", checkpoint, "--max-new-tokens", 6, stdin=said)
    assert done.returncode == 0
    assert "gone.jpg: no such file" in done.stderr and "no command /nonsense" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1], "after /reset the same question has the same answer"


def test_chat_saves_what_was_said_for_training(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    from llavakit.data.sources.llava import LlavaSource

    said = f"/save early.json\n/image {photo}\nWhat is it?\nSure?\n/save\n/save talk.json\n"
    done = llavakit("chat", checkpoint, "--max-new-tokens", 6, stdin=said, cwd=tmp_path)
    assert "nothing has been said yet" in done.stderr and "say where to: /save FILE" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]
    (saved,) = LlavaSource(tmp_path / "talk.json")
    first, second = done.stdout.splitlines()
    assert [turn.text for turn in saved.turns] == ["<image>\nWhat is it?", first, "Sure?", second]
    assert saved.images[0].source == photo.resolve()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ask", "nowhere", "hi"], 2, "no checkpoint directory at nowhere"),
        (["ask", "{model}", "hi", "--image", "gone.jpg"], 1, "gone.jpg: no such file"),
        (["ask", "{model}", "why " * 600], 1, "the context holds 512; shorten it"),
        (["train", "llava15-7c"], 2, "did you mean"),
        (["train", "llava15-7b", "stages.tune.btach_size=3"], 2, "(did you mean 'batch_size'?)"),
        (["train", "llava15-7b", "--out", "x"], 2, "stages.align.data.blip_558k: no file at playground/data/"),
        (["plan", "llava15-7b", "model.vision=openai/nowhere"], 2, "cannot load 'openai/nowhere'"),
        (["eval", "{model}", "--bench", "popo", "--data", "."], 2, "did you mean 'pope'"),
        (["trian"], 2, "did you mean 'train'"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    checkpoint: Path, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    done = llavakit(*(word.replace("{model}", str(checkpoint)) for word in words), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_plan_needs_no_weights(tmp_path: Path) -> None:
    done = llavakit("plan", "llava15-7b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for figure in ("6,738,415,616", "20,979,712", "303,507,456", "2,181", "5,198", "576 tokens per image"):
        assert figure in done.stdout


def test_eval_and_score_agree_on_questions_of_ones_own(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    record = {"image": str(photo), "text": "Is it?", "metric": "exact", "answers": ["yes"]}
    lines = [json.dumps(record | {"question_id": n, "text": f"Is it {n}?"}) for n in range(5)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    asked = llavakit(
        "eval", checkpoint, "--bench", "records", "--data", tmp_path / "questions.jsonl", "--out", tmp_path / "out",
        "--json",
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    scored = llavakit(
        "score", "records", "--annotations", tmp_path / "questions.jsonl",
        "--answers", tmp_path / "out" / "records" / "answers.jsonl", "--json",
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    assert json.loads(asked.stdout) == [json.loads(scored.stdout)]
    assert json.loads(scored.stdout)["count"] == 5


def test_ask_takes_every_way_of_decoding(checkpoint: Path, photo: Path) -> None:
    from llavakit import load
    from llavakit.engine.sample import Decoding

    flags = ["--num-beams", 3, "--length-penalty", 0.5, "--repetition-penalty", 1.2, "--stop", "zzz", "--stop", "yyy"]
    done = llavakit("ask", checkpoint, "--image", photo, "What is it?", "--max-new-tokens", 8, *flags)
    how = Decoding(max_new_tokens=8, num_beams=3, length_penalty=0.5, repetition_penalty=1.2, stop=("zzz", "yyy"))
    assert (done.returncode, done.stdout) == (0, load(checkpoint).ask(photo, "What is it?", how) + "\n")
    done = llavakit("ask", checkpoint, "hi", "--num-beams", 3, "--temperature", 0.5)
    assert done.returncode == 2 and "set temperature to 0" in done.stderr
