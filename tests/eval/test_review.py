"""The judge's run against a real server: files that the official tools read, failures left out, nothing paid twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from llavakit.cli import main
from llavakit.endpoint.local import LocalEndpoint

Reply = Callable[[str, int], str]
"""From what is judged and how often it was asked before to what the judge says."""


class Bench:
    """A judge on loopback, official files and a model's answers; ``asked`` counts the judge's questions."""

    def __init__(self, folder: Path, name: str, files: Mapping[str, Any], answers: list[dict[str, Any]]) -> None:
        self.folder, self.name, self.asked = folder, name, Counter[str]()
        self.bodies: list[Mapping[str, Any]] = []
        self.lock = threading.Lock()
        (folder / "data").mkdir()
        for file, value in files.items():
            lines = "".join(json.dumps(one) + "\n" for one in value) if file.endswith("l") else json.dumps(value)
            (folder / "data" / file).write_text(lines)
        (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))

    def judged(self, reply: Reply, *words: object, code: int = 0) -> None:
        def answer(body: Mapping[str, Any]) -> str:
            prompt = body["messages"][-1]["content"]
            with self.lock:
                number = self.asked[prompt]
                self.asked[prompt] += 1
                self.bodies.append(body)
            return reply(prompt, number)

        with LocalEndpoint(answer) as server:
            options = ["--data", self.folder / "data", "--answers", self.folder / "answers.jsonl", "--model", "judge-1",
                       "--endpoint", server.url, "--out", self.folder / "out", *words]  # fmt: skip
            assert main(["judge", self.name, *map(str, options)]) == code

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out" / name).read_text().splitlines()]

    @property
    def about(self) -> dict[str, Any]:
        found = json.loads((self.folder / "out" / "judge.json").read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture()
def llava_bench(tmp_path: Path) -> Bench:
    kinds = ["conv", "detail", "complex", "conv"]
    questions = [{"question_id": n, "image": "1.jpg", "text": f"q{n}", "category": k} for n, k in enumerate(kinds)]
    files = {
        "questions.jsonl": questions,
        "answers_gpt4.jsonl": [{"question_id": n, "text": f"reference {n}", "answer_id": f"r{n}"} for n in range(4)],
        "context.jsonl": [{"id": 0, "image": "1.jpg", "caption": "A cat."}],
        "rule.json": {f"llava_bench_{k}": {"role": "Assistant", "prompt": f"Rule for {k}."} for k in kinds},
    }
    answers = [{"question_id": n, "prompt": f"q{n}", "text": f"mine {n}", "answer_id": f"a{n}"} for n in range(4)]
    return Bench(tmp_path, "llava_bench_in_the_wild", files, answers)


@pytest.fixture()
def mm_vet(tmp_path: Path) -> Bench:
    items = {f"v1_{n}": {"imagename": "1.jpg", "question": f"q{n}", "answer": "yes", "capability": ["rec"]}
             for n in range(3)}  # fmt: skip
    answers = [{"question_id": n, "text": f"mine {n}"} for n in range(3)]
    return Bench(tmp_path, "mm_vet", {"mm-vet.json": items}, answers)


def test_reviews_in_llavas_form(llava_bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    llava_bench.judged(lambda prompt, n: "8 6\nThe first is better.", "--price", "1,2")
    (first, *others) = llava_bench.lines("run-1.jsonl")
    assert len(others) == 3 and first["category"] == "llava_bench_conv"
    assert (first["id"], first["question_id"], first["answer1_id"], first["answer2_id"]) == (1, 0, "r0", "a0")
    assert first["tuple"] == [8.0, 6.0] and first["content"].startswith("8 6\n")
    assert len(first["prompt_sha256"]) == 64 and first["judge"] == "judge-1"
    said = llava_bench.bodies[0]["messages"][-1]["content"]
    assert "A cat." in said and "Rule for" in said and llava_bench.bodies[0]["temperature"] == 0.2
    about = llava_bench.about
    assert about["result"]["score"] == 75.0 and about["answered_by"] == {"judge-1": 4} and about["cost"] > 0
    out = llava_bench.folder / "out"
    capsys.readouterr()
    assert main(["score", "llava_bench_in_the_wild", "--annotations", str(llava_bench.folder / "data"),
                 "--answers", str(out / "run-1.jsonl"), "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["score"] == 75.0


def test_what_can_not_be_read_is_asked_again_then_left_out(llava_bench: Bench) -> None:
    def reply(prompt: str, n: int) -> str:
        if "mine 1" in prompt:
            return "Both are fine."
        return "Scores: 7 7" if "mine 2" in prompt and n == 0 else "10 5"

    llava_bench.judged(reply)
    assert [line["question_id"] for line in llava_bench.lines("run-1.jsonl")] == [0, 2, 3]
    (failure,) = llava_bench.lines("failures.jsonl")
    assert failure["question_id"] == 1 and "Both are fine." in failure["reason"]
    assert sorted(llava_bench.asked.values()) == [1, 1, 2, 3]
    about = llava_bench.about
    assert about["failures"] == 1 and about["result"]["score"] == 50.0 and about["result"]["missing"] == 1


def test_runs_ask_anew_and_have_a_spread(llava_bench: Bench) -> None:
    llava_bench.judged(lambda prompt, n: f"10 {5 + n}", "--runs", 3, "--concurrency", 1)
    assert set(llava_bench.asked.values()) == {3}
    assert llava_bench.about["runs"] == [50.0, 60.0, 70.0]
    assert llava_bench.about["result"]["score"] == pytest.approx(60.0)
    assert llava_bench.about["result"]["metrics"]["spread"] == pytest.approx((200 / 3) ** 0.5)
    before = [llava_bench.lines(f"run-{n}.jsonl") for n in (1, 2, 3)]
    llava_bench.judged(lambda prompt, n: "1 1", "--runs", 3)
    assert set(llava_bench.asked.values()) == {3}, "a second command pays nothing"
    assert [llava_bench.lines(f"run-{n}.jsonl") for n in (1, 2, 3)] == before


def test_a_judge_that_is_never_readable_has_no_score(llava_bench: Bench) -> None:
    llava_bench.judged(lambda prompt, n: "Hm.", code=1)
    assert not (llava_bench.folder / "out" / "judge.json").exists()


def test_grades_in_mm_vets_form(mm_vet: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    mm_vet.judged(lambda prompt, n: "0.5" if n else "1.0", "--runs", 2, "--concurrency", 1)
    grades = json.loads((mm_vet.folder / "out" / "grades.json").read_text())
    assert grades["v1_2"] == {"model": ["judge-1"] * 2, "content": ["1.0", "0.5"], "score": [1.0, 0.5]}
    assert mm_vet.about["runs"] == [100.0, 50.0] and mm_vet.bodies[0]["max_tokens"] == 3
    capsys.readouterr()
    assert main(["score", "mm_vet", "--annotations", str(mm_vet.folder / "data"),
                 "--answers", str(mm_vet.folder / "out" / "grades.json"), "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["score"] == 75.0


def test_other_answers_are_not_mixed_in(mm_vet: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    mm_vet.judged(lambda prompt, n: "1.0")
    path = mm_vet.folder / "answers.jsonl"
    path.write_text(path.read_text().replace("mine 1", "another"))
    mm_vet.judged(lambda prompt, n: "1.0", code=2)
    assert "answers to other questions" in capsys.readouterr().err


def test_wrong_requests(mm_vet: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    mm_vet.judged(lambda prompt, n: "1.0", "--runs", 0, code=2)
    mm_vet.name = "pope"
    mm_vet.judged(lambda prompt, n: "1.0", code=2)
    assert "needs no judge" in capsys.readouterr().err
