"""ScienceQA by two models."""

import json
from pathlib import Path
from typing import Any

import pytest

from llavakit.base.errors import BadRequest
from llavakit.cli import main
from llavakit.eval.ensemble import ensemble, read_texts, second_look
from llavakit.eval.explain import explanation
from llavakit.eval.run import score
from llavakit.eval.tasks.records import Records
from llavakit.eval.tasks.scienceqa import ScienceQA

from .conftest import Put

SAID = {
    # right answer is B: what the seeing model says, what the reader says, the reader's second look
    "1": ("Iron. The answer is B.", "The answer is B.", ""),
    "2": ("The answer is A.", "I think. The answer is B.", "The answer is B."),
    "3": ("The answer is B.", "The answer is A.", "The answer is A."),
    "4": ("The answer is B.", "I can not see it.", ""),
    "5": ("no idea", "The answer is B. The answer is A.", ""),
}


def put_all(put: Put) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png"}
    put("problems.json", {id: problem for id in SAID})
    put("pid_splits.json", {"test": list(SAID)})
    texts: Any = [{id: said[n] for id, said in SAID.items() if said[n]} for n in range(3)]
    for name, own in zip(("seeing", "reading", "second"), texts, strict=True):
        put(f"{name}.jsonl", [{"question_id": id, "text": text} for id, text in own.items()])
    return texts[0], texts[1], texts[2]


def test_ensemble(put: Put, tmp_path: Path) -> None:
    seeing, reading, second = put_all(put)
    questions = ScienceQA("qcm_lea").load(tmp_path)
    without = ensemble(questions, seeing, reading, {})
    assert without.score == 60.0
    result = ensemble(questions, seeing, reading, second)
    assert result.metrics == {
        "accuracy": 60.0, "seeing": 60.0, "reading": 40.0, "complement": 60.0, "upper_bound": 80.0,
        "reader_without_answer": 40.0, "second_looks (count)": 2.0,
    }  # fmt: skip
    assert result.unparsed == 1
    assert ensemble(questions, seeing, reading, second | {"3": "So: The answer is B."}).score == 80.0
    # A letter that is no choice is an answer all the same, and a wrong one: it is not made up for by the other model.
    strange = "The answer is E."
    assert ensemble(questions, seeing, reading, second | {"1": strange}).score == 40.0
    other = ensemble(questions, seeing, reading | {"1": strange}, second).metrics
    assert (other["complement"], other["reader_without_answer"]) == (40.0, 40.0)
    with pytest.raises(BadRequest, match="question '4' lacks one"):
        ensemble(questions, seeing, {id: text for id, text in reading.items() if id != "4"}, {})


def test_the_reader_is_asked_again_where_both_answer_and_differ(put: Put, tmp_path: Path) -> None:
    seeing, reading, _ = put_all(put)
    questions = ScienceQA("qcm_lea").load(tmp_path)
    lines = second_look(questions, seeing, reading)
    assert [line["question_id"] for line in lines] == ["2", "3"]
    assert lines[0]["text"].startswith("Which?\nContext: N/A\nOptions: (A) x (B) y\n\nOne assistant")
    put("differing.jsonl", lines)
    assert len(Records().load(tmp_path / "differing.jsonl")) == 2


def test_command_line(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_all(put)
    words = ["ensemble", "--annotations", str(tmp_path), "--answers", str(tmp_path / "seeing.jsonl"), "--reader",
             str(tmp_path / "reading.jsonl")]  # fmt: skip
    assert main([*words, "--ask", str(tmp_path / "ask.jsonl")]) == 0
    assert len((tmp_path / "ask.jsonl").read_text().splitlines()) == 2
    assert main([*words, "--second", str(tmp_path / "second.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == 60.0


def test_llavas_result_json(put: Put) -> None:
    assert read_texts(put("result.json", {"acc": 1, "outputs": {"1": "x"}})) == {"1": "x"}
    with pytest.raises(BadRequest, match="outputs by question id"):
        read_texts(put("other.json", {"acc": 1}))


def test_the_reader_sees_no_picture(put: Put, tmp_path: Path) -> None:
    put_all(put)
    questions = ScienceQA("text_only").load(tmp_path)
    assert not questions[0].conversation.images
    assert score(ScienceQA("text_only"), questions, [{"question_id": "1", "text": "The answer is B."}]).score == 20.0


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        ("Magnets attract iron. The answer is B.", "Magnets attract iron."),
        ("The answer is B. BECAUSE: iron is attracted", "iron is attracted"),
        ("It is heavy, so the answer is (C).", "It is heavy,"),
        ("The answer is B.", ""),
        ("B. a magnet attracts", ""),
        ("Because.", ""),
        ("The answer is Because", ""),
    ],
)
def test_explanation(answer: str, reasons: str) -> None:
    assert explanation(answer) == reasons
