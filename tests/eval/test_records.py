"""Benchmarks of one's own: JSONL questions and LLaVA-format conversations."""

from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest
from llavakit.eval.benchmark import text_of
from llavakit.eval.prompts import CAPTION, LETTER, SHORT
from llavakit.eval.run import score
from llavakit.eval.tasks.records import Records

from .conftest import Put
from .test_more_tasks import tallies_make_the_headline

LINE = {"question_id": 1, "image": "images/a.png", "text": "What?", "metric": "exact", "answers": ["cup"]}


def test_jsonl(put: Put, tmp_path: Path) -> None:
    put("images/a.png")
    path = put(
        "questions.jsonl",
        [
            LINE | {"kind": "name", "novel": True},
            LINE | {"question_id": "b", "kind": "name", "novel": False, "image": None},
            LINE | {"question_id": 3, "metric": "box", "answers": ["[0, 0, 1, 1]"], "kind": "where"},
        ],
    )
    questions = Records().load(tmp_path)
    assert questions == Records().load(path)
    assert text_of(questions[0]) == "<image>\nWhat?"
    assert text_of(questions[1]) == "What?"
    assert questions[0].conversation.images[0].source == tmp_path / "images/a.png"
    answers = [{"question_id": id, "text": text} for id, text in ((1, "Cup."), ("b", "jug"), (3, "[0,0,1,1]"))]
    result = score(Records(), questions, answers)
    assert result.score == pytest.approx(200 / 3)
    assert result.metrics == {
        "name": 50.0, "where": 100.0, "exact": 50.0, "box": 100.0, "familiar": 0.0, "novel": 100.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"metric": "exakt"}, "metric"),
        ({"anwsers": []}, "anwsers: unknown key .*answers"),
        ({"answers": []}, "needs at least one"),
        ({"metric": "phrases"}, "needs a regular expression"),
        ({"metric": "phrases", "pattern": "("}, "no regular expression"),
        ({"metric": "box", "answers": ["left"]}, "no box"),
    ],
)
def test_a_bad_record_is_named(put: Put, change: dict[str, object], complaint: str) -> None:
    path = put("questions.jsonl", [LINE, LINE | {"question_id": 2} | change])
    with pytest.raises(BadRequest, match=f"record 2.*{complaint}"):
        Records().load(path)


def test_an_id_may_not_occur_twice(put: Put) -> None:
    with pytest.raises(BadRequest, match="'1' occurs twice"):
        Records().load(put("questions.jsonl", [LINE, LINE]))


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if n % 2 else "human", "value": text} for n, text in enumerate(texts)]


def test_llava_format(put: Put, tmp_path: Path) -> None:
    talk = turns(f"What?\n{SHORT}\n<image>", "Cup", "And here?", "A jug.", f"Which?\nA. x\nB. y\n{LETTER}", "B")
    records = [
        {"id": "t", "image": "a.png", "conversations": talk},
        {"id": "c", "image": "a.png", "conversations": turns(f"<image>\n{CAPTION}", "A red cup.", "unanswered")},
        {"id": "n", "conversations": turns("Hello", "Hi")},
    ]
    path = put("val.json", records)
    questions = Records().load(path, images=tmp_path / "pictures")
    assert [q.id for q in questions] == ["t#1", "t#2", "t#3", "c#1", "n"]
    assert [q.truth["metric"] for q in questions] == ["exact", "open", "choice", "words", "open"]
    assert text_of(questions[0]) == f"<image>\nWhat?\n{SHORT}"
    assert text_of(questions[1]) == "<image>\nAnd here?"
    assert questions[0].conversation.images[0].source == tmp_path / "pictures/a.png"
    texts = ["cup", "anything", "A", "a red dog", "x"]
    result = score(
        Records(), questions, [{"question_id": q.id, "text": t} for q, t in zip(questions, texts, strict=True)]
    )
    assert result.score == 50.0
    assert result.metrics == pytest.approx(
        {"exact": 100.0, "choice": 0.0, "words": 200 / 3, "open-ended, not scored (count)": 2.0}
    )


def test_captions_alone_make_the_headline(put: Put) -> None:
    path = put("val.json", [{"id": "c", "conversations": turns(CAPTION, "A red cup.")}])
    questions = Records().load(path)
    assert score(Records(), questions, [{"question_id": "c", "text": "a red cup"}]).score == 100.0


def test_json_that_is_no_list_is_refused(put: Put) -> None:
    with pytest.raises(BadRequest, match="must hold a list"):
        Records().load(put("val.json", {"id": 1}))


def test_an_interval_is_of_what_makes_the_headline(put: Put) -> None:
    kinds = ["exact", "words", "exact", "open", "exact"]
    lines = [{"question_id": n, "text": f"{n}?", "metric": k, "answers": ["a cup"]} for n, k in enumerate(kinds)]
    questions = Records().load(put("questions.jsonl", lines))
    tallies_make_the_headline(Records(), questions, ["a cup"] * 5)
    answers = [{"question_id": n, "text": "a cup" if n else "no"} for n in range(5)]
    result = score(Records(), questions, answers)
    assert result.score == pytest.approx(200 / 3) and result.interval == (0.0, 100.0)
