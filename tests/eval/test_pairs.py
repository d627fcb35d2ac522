"""MME's pairs and MMBench's rotations, and the files that go to servers."""

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.eval.benchmark import text_of
from llavakit.eval.run import score, submission
from llavakit.eval.tasks.mmbench import MMBench
from llavakit.eval.tasks.mmbench_cn import MMBenchCN
from llavakit.eval.tasks.mme import _COGNITION, _PERCEPTION, Mme
from llavakit.eval.tasks.pope import Pope
from llavakit.eval.tasks.vizwiz import VizWiz
from llavakit.eval.tasks.vqav2 import VqaV2
from llavakit.eval.xlsx import read_sheet, workbook
from llavakit.image.open import open_image

from .conftest import Put

TASKS = (*_PERCEPTION, *_COGNITION)


def put_mme(folder: Path) -> None:
    """Two pictures a task, one task in the other layout and with MME's stray double space."""
    for task in TASKS:
        below = folder / task / ("questions_answers_YN" if task == "posters" else "")
        below.mkdir(parents=True)
        for name in ("a", "b"):
            space = "  " if task == "count" else " "
            below.joinpath(f"{name}.txt").write_text(
                f"Is it {name}?{space}Please answer yes or no.\tYes\nIs it not?{space}Please answer yes or no.\tNo\n"
            )
    (folder / "posters" / "images").mkdir()


def mme_answers(tmp_path: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    put_mme(tmp_path / "MME_Benchmark_release_version")
    questions = Mme().load(tmp_path)
    assert len(questions) == 56
    return questions, [Mme().record(q) | {"text": q.truth["answer"].title()} for q in questions]


def test_mme(tmp_path: Path) -> None:
    questions, answers = mme_answers(tmp_path)
    assert text_of(questions[0]) == "<image>\nIs it a?\nAnswer the question using a single word or phrase."
    assert {a["question_id"] for a in answers if a["question_id"].startswith("posters")} == {
        "posters/images/a.jpg", "posters/images/b.jpg",
    }  # fmt: skip
    result = score(Mme(), questions, answers)
    assert (result.score, result.metrics["cognition"], result.unit) == (2000.0, 800.0, "points")
    answers[0] |= {"text": "maybe"}
    result = score(Mme(), questions, answers)
    assert (result.score, result.unparsed) == (2000 - 25 - 50, 1)


def test_mme_pairs_by_position(tmp_path: Path) -> None:
    questions, answers = mme_answers(tmp_path)
    # Two questions of one picture wrong: one picture is lost. Of two pictures: both are, though as much is right.
    answers[0] |= {"text": "No"}
    answers[1] |= {"text": "Yes"}
    assert score(Mme(), questions, answers).score == 2000 - 50 - 50
    answers[1], answers[2] = answers[2], answers[1]
    result = score(Mme(), questions, answers)
    assert (result.score, result.metrics["strict"]) == (2000 - 50 - 100, 2000 - 50 - 50)


@pytest.mark.parametrize("fault", ["odd", "newline", "stranger", "task"])
def test_mme_stops(tmp_path: Path, fault: str) -> None:
    questions, answers = mme_answers(tmp_path)
    if fault == "odd":
        answers = answers[1:]
    elif fault == "newline":
        answers[0] |= {"text": "Yes\n"}
    elif fault == "stranger":
        answers[0] |= {"prompt": "Is it c?"}
    else:
        answers = [a for a in answers if not a["question_id"].startswith("OCR")]
    result = score(Mme(), questions, answers)
    assert result.metrics["official_stops"] == 1.0
    assert result.score == result.metrics["strict"]


PICTURE = base64.b64encode(b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
                           b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;").decode()  # fmt: skip
NAMES = [
    "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category", "comment",
    "split",
]  # fmt: skip


def put_mmbench(tmp_path: Path, name: str = "mmbench_dev_20230712.tsv", answer: bool = True) -> None:
    """Question 5 in two rotations, 6 in one; a cell with a quoted tab and line's end."""
    rows = [
        ["5", "Which?", "", "cat", "dog", "", "", "A", "kind", PICTURE, "s", "wide", "", "dev"],
        ["1000005", "Which?", "", "dog", "cat", "", "", "B", "kind", "5", "s", "wide", "", "dev"],
        ["6", '"How ""many""?\nSay.\t"', "Count.", "1", "2", "NA", "4", "D", "kind", PICTURE, "s", "narrow", "", "dev"],
    ]
    if not answer:
        rows = [[*row[:7], "", *row[8:]] for row in rows]
    text = "".join("\t".join(row) + "\n" for row in [NAMES, *rows])
    (tmp_path / name).write_text(text, encoding="utf-8")


def test_mmbench(tmp_path: Path) -> None:
    put_mmbench(tmp_path)
    questions = MMBench().load(tmp_path)
    assert text_of(questions[0]) == (
        "<image>\nWhich?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly."
    )
    # As LLaVA asks it: options up to the first empty one.
    assert MMBench().record(questions[2])["prompt"] == 'Count.\nHow "many"?\nSay.\t\nA. 1\nB. 2'
    assert open_image(questions[1].conversation.images[0].source).size == (1, 1)
    texts = {5: "A", 1000005: "(B)", 6: "the answer is D"}
    answers = [{"question_id": id, "text": text} for id, text in texts.items()]
    right = score(MMBench(), questions, answers)
    assert right.score == 1.0
    wrong = score(MMBench(), questions, [*answers[:1], answers[1] | {"text": "A"}, answers[2], *answers[:1]])
    assert (wrong.score, wrong.duplicates) == (0.5, 1)
    assert wrong.metrics == {"circular": 0.5, "vanilla": 1.0, "groups": 2.0, "kind": 0.5, "wide": 0.0, "narrow": 1.0,
                             "strict": 0.5}  # fmt: skip
    missing = score(MMBench(), questions, answers[:1])
    assert (missing.score, missing.missing, missing.metrics["vanilla"]) == (0.0, 2, 0.5)


def test_mmbench_in_both_languages_side_by_side(tmp_path: Path) -> None:
    put_mmbench(tmp_path)
    with pytest.raises(BadRequest, match="mmbench_dev_cn"):
        MMBenchCN().load(tmp_path)
    put_mmbench(tmp_path, "mmbench_dev_cn_20231003.tsv")
    assert text_of(MMBenchCN().load(tmp_path)[0]).endswith("\nB. dog\n请直接回答选项字母。")
    assert text_of(MMBench().load(tmp_path)[0]).endswith("directly.")


def test_mmbench_submission(tmp_path: Path) -> None:
    put_mmbench(tmp_path, answer=False)
    with pytest.raises(BadRequest, match="no answers to score against"):
        MMBench().annotations(tmp_path, [])
    answers = [{"question_id": 5, "text": "A"}, {"question_id": 6, "text": "D <&> é"}, {"question_id": 5, "text": "B"}]
    content = submission(MMBench(), tmp_path, answers)
    assert content == submission(MMBench(), tmp_path, answers)
    path = tmp_path / "upload.xlsx"
    path.write_bytes(content)
    rows = read_sheet(path)
    assert list(rows[0]) == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert [row["prediction"] for row in rows] == ["B", "", "D <&> é"]
    assert rows[2]["question"] == 'How "many"?\nSay.\t'
    sheet = zipfile.ZipFile(path).read("xl/worksheets/sheet1.xml").decode()
    assert '<c r="A2" t="n"><v>5</v></c><c r="B2" t="inlineStr"><is><t>Which?</t></is></c>' in sheet
    assert '<c r="G3" t="inlineStr" />' in sheet
    with pytest.raises(BadRequest, match="can not stand in an Excel cell"):
        submission(MMBench(), tmp_path, [{"question_id": 5, "text": "\x07"}])


def test_a_workbook_serves_as_annotations(tmp_path: Path) -> None:
    """What a submission of a split with answers holds is enough to score by."""
    head = ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    rows = [[5, "Which?", "cat", "dog", None, None, "x", "B", "dev"]]
    (tmp_path / "any.xlsx").write_bytes(workbook(head, rows))
    questions = MMBench().load(tmp_path)
    assert score(MMBench(), questions, [{"question_id": 5, "text": "a dog"}]).score == 1.0
    (tmp_path / "any.xlsx").write_bytes(b"no zip")
    with pytest.raises(BadRequest, match="no Excel workbook"):
        MMBench().load(tmp_path)


def test_vqav2_submission(put: Put, tmp_path: Path) -> None:
    put("llava_vqav2_mscoco_test-dev2015.jsonl", [{"question_id": 2, "image": "a.jpg", "text": "Is it?\nshort"}])
    put("llava_vqav2_mscoco_test2015.jsonl", [{"question_id": n} for n in (3, 2)])
    (question,) = VqaV2().load(tmp_path)
    assert text_of(question) == "<image>\nIs it?\nshort"
    content = submission(VqaV2(), tmp_path, [{"question_id": 2, "text": "The two, é"}])
    assert content == b'[{"question_id": 3, "answer": ""}, {"question_id": 2, "answer": "2 \\u00e9"}]'
    with pytest.raises(BadRequest, match="no answers to score against"):
        VqaV2().annotations(tmp_path, [])


def test_vizwiz_submission(put: Put, tmp_path: Path) -> None:
    put(
        "llava_test.jsonl",
        [{"question_id": n, "image": f"{n}.jpg", "text": "?", "category": "default"} for n in (0, 1)],
    )
    answers = [{"question_id": n, "text": "A Dog."} for n in (1, 0)]
    content = submission(VizWiz(), tmp_path, answers)
    assert json.loads(content) == [{"image": "0.jpg", "answer": "dog"}, {"image": "1.jpg", "answer": "dog"}]
    with pytest.raises(BadRequest, match="1 questions have no answer, the first is '0'"):
        submission(VizWiz(), tmp_path, answers[:1])


def test_pope_has_no_server(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no server"):
        submission(Pope(), tmp_path, [])


def test_a_lazy_picture_is_read_when_opened(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    assert open_image((tmp_path / "a.png").read_bytes).size == (3, 2)
