"""llavakit score: the JSON's keys, protocols, several runs, submissions."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llavakit.cli import main

KEYS = ["benchmark", "protocol", "score", "unit", "metrics", "count", "missing", "duplicates", "unparsed", "interval"]


def lines(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def pope(tmp_path: Path) -> list[str]:
    """Two questions a category, the first of random without an answer: positions shift there."""
    for category in ("random", "popular", "adversarial"):
        item = {"image": "a.jpg", "text": "Is there a cat in the image?"}
        lines(
            tmp_path / f"coco_pope_{category}.json",
            [item | {"question_id": n, "label": label} for n, label in ((1, "yes"), (2, "no"), (3, "yes"))],
        )
    texts = {1: "Yes", 2: "No", 3: "Yes"}
    answers = [{"question_id": f + n, "text": t} for f in (0, 10_000_000, 20_000_000) for n, t in texts.items()]
    path = lines(tmp_path / "answers.jsonl", [a for a in answers if a["question_id"] != 10_000_002])
    return ["score", "pope", "--annotations", str(tmp_path), "--answers", path]


def test_json_and_protocols(pope: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*pope, "--json"]) == 0
    official = json.loads(capsys.readouterr().out)
    assert list(official) == KEYS
    assert main([*pope, "--protocol", "strict", "--json"]) == 0
    strict = json.loads(capsys.readouterr().out)
    # Yes, No, Yes without the No: the second Yes meets the label no.
    assert official["score"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert (strict["score"], strict["metrics"]["random_accuracy"]) == (1.0, pytest.approx(2 / 3))
    assert (official["protocol"], strict["protocol"], strict["missing"]) == ("official", "strict", 1)
    assert main(pope) == 0
    assert "1 missing, strict count differs: 1.0000" in capsys.readouterr().out
    assert main([*pope, "--protocol", "honest"]) == 2
    assert "known: official, strict" in capsys.readouterr().err


def test_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review = {"question_id": 0, "category": "llava_bench_conv", "content": "8 4", "tuple": [8, 4]}
    paths = [lines(tmp_path / f"{n}.jsonl", [review | {"content": f"8 {n}", "tuple": [8, n]}]) for n in (4, 6)]
    words = ["score", "llava-bench-in-the-wild", "--annotations", str(tmp_path), "--answers", *paths, "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["score"], result["metrics"]["run_2"], result["metrics"]["spread"]) == (62.5, 75.0, 12.5)


def test_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(tmp_path / "llava_test.jsonl", [{"question_id": 0, "image": "a.jpg", "text": "?"}])
    answers = lines(tmp_path / "answers.jsonl", [{"question_id": 0, "text": "The Cat"}])
    words = ["score", "vizwiz", "--annotations", str(tmp_path), "--answers", answers]
    assert main([*words, "--submission", str(tmp_path / "upload.json")]) == 0
    assert (tmp_path / "upload.json").read_text() == '[{"image": "a.jpg", "answer": "cat"}]'
    assert main(words) == 2  # a test split can not be scored
    assert "no answers to score against" in capsys.readouterr().err
    assert main([*words, answers, "--submission", str(tmp_path / "other.json")]) == 2
    assert not (tmp_path / "other.json").exists()


def test_scoring_needs_neither_torch_nor_transformers(pope: list[str]) -> None:
    import subprocess

    code = (
        "import sys; from llavakit.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or sum(name in sys.modules for name in ('torch', 'transformers', 'pyarrow', 'pandas')))"
    )
    done = subprocess.run([sys.executable, "-c", code, *pope], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
