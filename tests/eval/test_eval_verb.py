"""``llavakit eval`` whole: any mix, killed and gone on with, by one process or several."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.cli import main
from llavakit.endpoint.local import LocalEndpoint
from llavakit.eval.chosen import folder_of
from llavakit.eval.run import BENCHMARKS

COLOURS = ("red", "green", "blue", "gray", "pink")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with GQA and with a benchmark of one's own, three questions a picture."""
    root = tmp_path / "data"
    for folder in ("GQA/images", "records/images"):
        (root / folder).mkdir(parents=True)
        for colour in COLOURS:
            Image.new("RGB", (8, 6), colour).save(root / folder / f"{colour}.jpg")
    words = ["Is it red?", "What colour?", "Is it round?"]
    gqa = {
        f"{n}": {"imageId": COLOURS[n % 5], "question": words[n // 5], "answer": "no", "types": {"structural": "query"}}
        for n in range(15)
    }
    (root / "GQA/testdev_balanced_questions.json").write_text(json.dumps(gqa))
    own = [
        {
            "question_id": n,
            "image": f"{COLOURS[n % 5]}.jpg",
            "text": words[n // 5],
            "metric": "exact",
            "answers": ["no"],
        }
        for n in range(15)
    ]
    (root / "records/questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    return root


def files(out: Path) -> dict[str, bytes]:
    """All that is said of the answers, by the file's place."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("*/*")}


def run(*words: object) -> int:
    return main(["eval", *map(str, words)])


def test_batches_order_and_processes_change_nothing(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--data", data, "--max-new-tokens", 8]
    assert run(checkpoint, "--bench", "all", *how, "--out", tmp_path / "one", "--batch-size", 1, "--json") == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["benchmark"] for result in results] == ["gqa", "records"]
    assert all(len(result["interval"]) == 2 for result in results)
    assert run(checkpoint, "--bench", "records,gqa", *how, "--out", tmp_path / "other", "--batch-size", 7) == 0
    words = [sys.executable, "-m", "llavakit", "eval", checkpoint, "--bench", "gqa,records", *how, "--out"]
    several = []
    for rank in (1, 0):
        place = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        line = [*map(str, words), str(tmp_path / "two")]
        several.append(subprocess.Popen(line, env=place, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=120)[0] for process in several]
    assert [process.returncode for process in several] == [0, 0]
    assert said[0] == "" and "gqa" in said[1]
    whole = files(tmp_path / "one")
    assert {"gqa/answers.jsonl", "gqa/result.json", "records/answers.jsonl", "records/result.json"} == whole.keys()
    texts = {json.loads(line)["text"] for line in whole["gqa/answers.jsonl"].splitlines()}
    assert len(texts) > 3, "a model that always says the same would show nothing"
    assert files(tmp_path / "other") == files(tmp_path / "two") == whole
    trained = tmp_path / "again"
    shutil.copytree(checkpoint, trained)
    assert run(trained, "--bench", "gqa", *how, "--out", tmp_path / "mine") == 0
    weights = bytearray((trained / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (trained / "model.safetensors").write_bytes(weights)
    assert run(trained, "--bench", "gqa", *how, "--out", tmp_path / "mine") == 2, "not the model that answered"


def test_killed_it_goes_on_and_asks_no_answered_question_again(data: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def model(body: Mapping[str, Any]) -> str:
        asked.append(json.dumps(body["messages"]))
        time.sleep(0.02)
        return "No."

    out = tmp_path / "out"
    with LocalEndpoint(model) as server:
        words = ["seer", "--endpoint", server.url, "--bench", "all", "--data", data, "--concurrency", "1", "--out", out]
        line = [sys.executable, "-m", "llavakit", "eval", *map(str, words)]
        for lines in (4, 11):
            process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
            log = out / "gqa/answers.jsonl"
            while process.poll() is None and (not log.is_file() or log.read_bytes().count(b"\n") < lines):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert run(*words) == 0
        assert len(asked) - len(set(asked)) <= 2, "only what was in flight at a kill"
        once = len(asked)
        assert run(*words) == 0 and len(asked) == once
    assert json.loads((out / "gqa/result.json").read_text())["score"] == 100.0


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mme", "MME"), ("mm_vet", "mm-vet"), ("vizwiz", "VizWiz-VQA"), ("mmbench", "MMBench_EN"), ("pope", "."),
     ("mmbench_cn", ".")],
)  # fmt: skip
def test_folders_as_llava_and_the_hub_call_them(name: str, folder: str, tmp_path: Path) -> None:
    for other in ("MME", "mm-vet", "VizWiz-VQA", "MMBench_EN", "pope_coco"):
        (tmp_path / other).mkdir()
    assert folder_of(BENCHMARKS[name], tmp_path) == tmp_path / folder


def test_a_folder_holds_one_models_answers(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"question_id": n, "text": "No" if n % 2 else "Yes"} for n in range(15)]
    said = tmp_path / "said"
    said.mkdir()
    for name in ("gqa", "records"):
        (said / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:14]))
    words = ["--bench", "all", "--data", data, "--out", tmp_path / "out"]
    assert run("someone", "--answers", said, *words, "--json") == 0
    gqa, _ = json.loads(capsys.readouterr().out)
    assert (gqa["missing"], gqa["score"]) == (1, pytest.approx(700 / 15))
    assert run("someone-else", "--answers", said, *words) == 2
    assert "holds answers of model 'someone', not 'someone-else'" in capsys.readouterr().err
    assert run("someone", "--answers", said / "gqa.jsonl", *words) == 2
    assert run("someone", "--answers", said, "--bench", "pope", "--data", data) == 2
    assert run("x", "--bench", "all", "--data", said) == 2
    assert "no folder in" in capsys.readouterr().err
