"""Running, resuming, scoring answers files, and the report."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import read_jsonl
from llavakit.chat.conversation import Conversation, ImageRef
from llavakit.chat.conversation import question as ask
from llavakit.eval.benchmark import Question
from llavakit.eval.order import Share, by_image, picture_names, share_of
from llavakit.eval.report import markdown_table, text_table
from llavakit.eval.run import BENCHMARKS, collect, evaluate, score, take
from llavakit.eval.run import ask as ask_all
from llavakit.eval.tasks.gqa import Gqa

BENCH = Gqa()


def make(count: int, folder: Path | None = None, images: int = 2) -> list[Question]:
    """Questions about ``images`` pictures in turn; the answer to number n is n."""
    questions = []
    for n in range(count):
        refs = [] if folder is None else [ImageRef(folder / f"{n % images}.jpg")]
        questions.append(
            Question(
                str(n),
                ask(f"Question {n}?", *refs, id=str(n)),
                {"answer": str(n), "balanced": True, "kinds": [], "group": None},
            )
        )
    return questions


class Model:
    """Answers with the question's id, and remembers what it was asked; breaks down after ``limit``."""

    def __init__(self, limit: int = 1000) -> None:
        self.asked: list[str] = []
        self.limit = limit

    def __call__(self, conversations: Iterable[Conversation]) -> Iterator[str]:
        for conversation in conversations:
            if len(self.asked) == self.limit:
                raise KeyboardInterrupt
            self.asked.append(conversation.id)
            yield conversation.id


def test_questions_about_one_picture_are_asked_in_a_row(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.jpg").touch()
    model = Model()
    result = evaluate(BENCH, make(5, tmp_path), model)
    assert model.asked == ["0", "2", "4", "1", "3"]
    assert (result.score, result.count, result.unit, result.protocol) == (100.0, 5, "percent", "official")


def test_a_killed_run_goes_on_without_asking_twice(tmp_path: Path) -> None:
    whole = evaluate(BENCH, make(6), Model(), tmp_path / "whole")
    first, second = Model(limit=4), Model()
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(BENCH, make(6), first, out)
    with open(out / "answers.jsonl", "a") as file:
        file.write('{"question_id": "4", "te')  # the kill tore a line
    assert evaluate(BENCH, make(6), second, out) == whole
    assert first.asked + second.asked == [str(n) for n in range(6)]
    for name in ("answers.jsonl", "result.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    record = json.loads((out / "answers.jsonl").read_text().splitlines()[5])
    expected = {
        "prompt": "Question 5?",
        "text": "5",
        "parsed": "5",
        "score": 1.0,
        "group": "",
        "truth": "5",
        "image": "",
    }
    assert record == {"question_id": "5"} | expected
    third = Model()
    assert evaluate(BENCH, make(6), third, out) == whole
    assert third.asked == []


def test_answers_to_other_questions_are_not_taken_over(tmp_path: Path) -> None:
    whole = evaluate(BENCH, make(3), Model(), tmp_path)
    again = Model()
    assert evaluate(BENCH, make(3)[::-1], again, tmp_path) == whole
    assert again.asked == [], "in another order they are the same questions"
    with pytest.raises(BadRequest, match=r"line 1: answers another question"):
        evaluate(BENCH, make(2), Model(), tmp_path)


def test_a_missing_picture_names_the_question_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").touch()
    model = Model()
    with pytest.raises(BadRequest, match=r"question '1': no image at .*1\.jpg"):
        evaluate(BENCH, make(2, tmp_path), model)
    assert model.asked == []


def test_a_model_that_stops_early_is_an_error() -> None:
    with pytest.raises(WorkFailed, match="question '0'"):
        evaluate(BENCH, make(2), lambda conversations: iter(()))


def test_answers_are_kept_without_the_space_around_them(tmp_path: Path) -> None:
    assert evaluate(BENCH, make(1), lambda conversations: iter([" 0 \n"]), tmp_path).score == 100.0
    assert read_jsonl(tmp_path / "answers.jsonl")[0]["text"] == "0"


def test_score_counts_missing_duplicate_and_foreign_answers() -> None:
    answers = [{"question_id": id, "text": text} for id, text in ((0, "0"), (1, "x"), (1, "1"), (9, "9"), (2, ""))]
    result = score(BENCH, make(4), answers)
    assert (result.count, result.missing, result.duplicates, result.unparsed) == (4, 1, 1, 1)
    assert result.score == 50.0
    assert result.metrics == {"answers to no question (count)": 1.0, "strict": 50.0, "official_stops": 1.0}


def test_score_refuses_what_is_no_answers_file() -> None:
    with pytest.raises(BadRequest, match="none of the 1 answers"):
        score(BENCH, make(1), [{"question_id": "x", "text": ""}])
    with pytest.raises(BadRequest, match="answer 1 must be"):
        score(BENCH, make(1), [{"question_id": "0"}])


def test_recorded_answers_are_a_run(tmp_path: Path) -> None:
    whole = evaluate(BENCH, make(3), Model(), tmp_path / "own")
    records = read_jsonl(tmp_path / "own/answers.jsonl")
    assert take(BENCH, make(3), records, tmp_path / "taken") == whole
    for name in ("answers.jsonl", "result.json"):
        assert (tmp_path / "taken" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()
    plain = [{key: record[key] for key in ("question_id", "prompt", "text")} for record in records]
    result = take(BENCH, make(4), [*plain[::-1], plain[0] | {"text": "x"}], tmp_path / "odd")
    assert (result.missing, result.duplicates, result.score) == (1, 1, 50.0)
    assert [record["text"] for record in read_jsonl(tmp_path / "odd/answers.jsonl")] == ["x", "1", "2"]


@pytest.mark.parametrize("killed", [False, True])
def test_several_processes_leave_what_one_would(killed: bool, tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}.jpg").touch()
    questions = make(10, tmp_path, images=4)
    alone, first, second, third = Model(), Model(limit=2 if killed else 1000), Model(), Model()
    whole = evaluate(BENCH, questions, alone, tmp_path / "one")
    out = tmp_path / "several"
    if killed:
        with pytest.raises(KeyboardInterrupt):
            ask_all(BENCH, questions, first, out, Share(0, 1))
        with open(out / "answers.jsonl", "a") as file:
            file.write('{"question_id": "4", "te')
    else:
        ask_all(BENCH, questions, first, out, Share(1, 3))
    ask_all(BENCH, questions, second, out, Share(1, 2))
    ask_all(BENCH, questions, third, out, Share(0, 2))
    assert collect(BENCH, questions, out) == whole
    asked = first.asked + second.asked + third.asked
    assert sorted(map(int, asked)) == list(range(10)), "every question once, whoever has begun"
    assert second.asked and third.asked
    assert sorted(path.name for path in out.iterdir()) == ["answers.jsonl", "result.json"]
    for name in ("answers.jsonl", "result.json"):
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@given(st.lists(st.integers(0, 3)))
def test_grouping_keeps_every_question_and_the_order_within_a_picture(pictures: list[int]) -> None:
    questions = [Question(str(n), ask("?", ImageRef(Path(str(p))), id=str(n)), {}) for n, p in enumerate(pictures)]
    grouped = [q for group in by_image(questions) for q in group]
    shared = [q for rank in range(3) for q in share_of(questions, Share(rank, 3))]
    assert sorted(q.id for q in shared) == sorted(q.id for q in grouped)
    assert share_of(questions, Share()) == grouped
    assert sorted(int(q.id) for q in grouped) == list(range(len(pictures)))
    order = [pictures[int(q.id)] for q in grouped]
    assert len([1 for a, b in itertools.pairwise(order) if a != b]) == max(len(set(pictures)) - 1, 0)
    for p in set(pictures):
        ids = [int(q.id) for q in grouped if pictures[int(q.id)] == p]
        assert ids == sorted(ids)


def test_pictures_have_names(tmp_path: Path) -> None:
    a, b, c = tmp_path / "x/1.jpg", tmp_path / "y/1.jpg", b"loose"
    shown = [[a], [ImageRef(c).source], [], [b], [a, b], [c]]
    questions = [Question(str(n), ask("?", *map(ImageRef, refs), id=str(n)), {}) for n, refs in enumerate(shown)]
    names = ["x/1.jpg", "#1", "", "y/1.jpg", "x/1.jpg y/1.jpg", "#1"]
    assert picture_names(questions) == {str(n): name for n, name in enumerate(names)}


def test_every_task_is_found() -> None:
    names = BENCHMARKS.names()
    assert {"vqav2", "gqa", "pope", "textvqa", "scienceqa", "records"} <= set(names)
    assert all(BENCHMARKS[name].name == name for name in names)


def test_report() -> None:
    result = score(BENCH, make(2), [{"question_id": "0", "text": "0"}])
    head, _, row = text_table([result]).splitlines()
    assert head.index("protocol") == row.index("official")
    assert "50.00 percent" in row
    assert row.endswith("1 missing, the official code stops on these answers")
    assert (
        markdown_table([result])
        .splitlines()[2]
        .startswith("| gqa | official | 2 | 50.00 percent | 0.00 to 100.00 | strict 50,")
    )
