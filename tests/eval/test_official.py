"""Equal to the official scorers: ``recorded.json`` holds made-up answers and what the official code gave for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.eval.benchmark import Benchmark, Question, Result
from llavakit.eval.choice import stated_letter
from llavakit.eval.infer import infer_option
from llavakit.eval.mmmu import chosen_letter, open_answer_right
from llavakit.eval.run import score
from llavakit.eval.tasks.chartqa import relaxed_match
from llavakit.eval.tasks.pope import Pope
from llavakit.eval.tasks.scienceqa import ScienceQA
from llavakit.eval.tasks.seed_bench import SeedBench
from llavakit.eval.tasks.textvqa import TextVQA, asked_by
from llavakit.eval.tasks.vizwiz import VizWiz
from llavakit.eval.tasks.vqav2 import VqaV2
from llavakit.eval.vqa import m4c_accuracy, normalize, normalize_m4c, vizwiz_accuracy
from llavakit.eval.yesno import yes_no_or_other

from .conftest import Put

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))


def both(benchmark: type[Benchmark], questions: list[Question], answers: list[Any]) -> tuple[Result, Result]:
    """The result by each protocol; each must name the other's score."""
    official, strict = score(benchmark(), questions, answers), score(benchmark("strict"), questions, answers)
    assert official.metrics["strict"] == strict.score
    assert strict.metrics["official"] == official.score
    return official, strict


def test_normalisations() -> None:
    for text, official, m4c in RECORDED["normal"]:
        assert (normalize(text), normalize_m4c(text)) == (official, m4c), text


def test_option_inference() -> None:
    for text, choices, letter in RECORDED["infer"]:
        assert infer_option(text, choices) == letter, (text, choices)


def test_mmmu_and_chartqa() -> None:
    for text, choices, letter in RECORDED["mmmu_letter"]:
        assert chosen_letter(text, choices) == letter, (text, choices)
    for text, gold, right in RECORDED["mmmu_open"]:
        assert open_answer_right(text, gold) == right, (text, gold)
    for said, gold, right in RECORDED["chartqa"]:
        assert relaxed_match(said, gold) == right, (said, gold)


def put_vqav2(put: Put, cases: list[Any]) -> None:
    head = {"data_subtype": "val2014"}
    questions = [{"image_id": 7, "question": "Is it?", "question_id": n} for n in range(len(cases))]
    truths = [{"question_id": n, "answer_type": "t", "answers": case["answers"]} for n, case in enumerate(cases)]
    put("v2_OpenEnded_mscoco_val2014_questions.json", head | {"questions": questions})
    put("v2_mscoco_val2014_annotations.json", head | {"annotations": truths})


def test_vqav2(put: Put, tmp_path: Path) -> None:
    """Half of the cases have annotators without an id, whom the official tool can not tell apart."""
    cases = RECORDED["vqa"]
    put_vqav2(put, cases)
    questions = VqaV2().load(tmp_path)
    answers = [{"question_id": n, "text": case["text"]} for n, case in enumerate(cases)]
    for n, case in enumerate(cases):
        assert score(VqaV2(), [questions[n]], [answers[n]]).score == pytest.approx(case["score"], abs=1e-9), case
    official, strict = both(VqaV2, questions, answers)
    assert official.score == pytest.approx(np.mean([case["score"] for case in cases]), abs=1e-9)
    assert strict.score > official.score


def test_vqav2_submits_a_missing_answer_as_an_empty_one(put: Put, tmp_path: Path) -> None:
    answers = [{"answer": text, "answer_id": n} for n, text in enumerate(["a", "the"] * 4 + ["x", "y"])]
    put_vqav2(put, [{"answers": answers}, {"answers": answers}])
    official, strict = both(VqaV2, VqaV2().load(tmp_path), [{"question_id": 0, "text": "x"}])
    # "a" and "the" are articles: normalised they are the empty answer.
    assert (official.score, strict.score) == (pytest.approx(65), pytest.approx(15))
    assert (official.missing, official.count) == (1, 2)


def test_pope(put: Put, tmp_path: Path) -> None:
    answers = []
    for number, (category, case) in enumerate(RECORDED["pope"].items()):
        item = {"image": "a.jpg", "text": "Is there a cat in the image?"}
        lines = [item | {"question_id": n, "label": label} for n, label in enumerate(case["labels"])]
        put(f"coco_pope_{category}.json", lines)
        first = (10_000_000, 20_000_000, 0)[number]
        answers += [{"question_id": first + n, "text": text} for n, text in case["answers"]]
    official, strict = both(Pope, Pope().load(tmp_path), answers)
    names = {"F1 score": "f1", "Accuracy": "accuracy", "Precision": "precision", "Recall": "recall"}
    for category, case in RECORDED["pope"].items():
        for theirs, ours in (names | {"Yes ratio": "yes_ratio"}).items():
            assert official.metrics[f"{category}_{ours}"] == pytest.approx(case["official"][theirs], abs=1e-9)
    f1 = [case["official"]["F1 score"] for case in RECORDED["pope"].values()]
    assert official.score == pytest.approx(np.mean(f1), abs=1e-9)
    assert strict.score != pytest.approx(official.score)
    assert official.missing > 0 < official.duplicates
    assert official.unparsed == sum(
        text == "maybe" for text in {(a["question_id"]): a["text"] for a in answers}.values()
    )


def test_pope_stops_where_the_official_code_divides_by_zero(put: Put, tmp_path: Path) -> None:
    for category in ("random", "popular", "adversarial"):
        put(f"coco_pope_{category}.json", [{"question_id": 1, "image": "a", "text": "?", "label": "yes"}])
    questions = Pope().load(tmp_path)
    result = score(Pope(), questions, [{"question_id": int(q.id), "text": "No"} for q in questions])
    assert (result.score, result.metrics["official_stops"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", "B"), (" B", ""), ("B.", ""), ("B. x", "B"), ("B. ", "B"), ("The answer is C.", "C"),
        ("The answer is C", ""), ("The answer is C\n", ""), ("The answer is C!", "C"), ("The answer is Because", "B"),
        ("The answer is A. The answer is B.", ""), ("F", ""), ("The answer is Z.", "Z"), ("", ""), ("b", ""),
    ],
)  # fmt: skip
def test_stated_letter(answer: str, expected: str) -> None:
    assert stated_letter(answer, "ABCDE") == expected


def test_scienceqa(put: Put, tmp_path: Path) -> None:
    problem = {
        "question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": None, "grade": "grade7",
        "subject": "natural science",
    }  # fmt: skip
    shown = problem | {"image": "image.png", "hint": "See.", "grade": "grade2", "subject": "language science"}
    put("problems.json", {"1": problem, "2": shown, "3": shown, "4": shown | {"choices": ["x", "y", "z"]}})
    put("pid_splits.json", {"test": ["1", "2", "3", "4"]})
    questions = ScienceQA().load(tmp_path)
    prompts = {q.id: ScienceQA().record(q) for q in questions}
    answers = [prompts["1"] | {"text": "B"}, prompts["2"] | {"text": "Iron attracts. The answer is B."}]
    answers.append(prompts["4"] | {"text": "C"})
    official, strict = both(ScienceQA, questions, answers)
    assert official.score == strict.score == 50.0
    # Without an answer a question has no picture for the official code.
    assert (official.metrics["img_accuracy"], strict.metrics["img_accuracy"]) == (50.0, pytest.approx(100 / 3))
    kinds = {"NAT": 100.0, "NO": 100.0, "G7-12": 100.0}
    kinds |= {kind: pytest.approx(100 / 3) for kind in ("LAN", "TXT", "IMG", "G1-6")}
    assert official.metrics == kinds | {
        "accuracy": 50.0, "img_accuracy": 50.0, "explanation_accuracy": 25.0, "strict": 50.0,
    }  # fmt: skip
    # A letter beyond the choices is no answer.
    assert score(ScienceQA(), questions[:1], [prompts["1"] | {"text": "C"}]).unparsed == 1


def test_scienceqa_as_it_was_fine_tuned(put: Put, tmp_path: Path) -> None:
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": None}
    put("problems.json", {"1": problem})
    put("pid_splits.json", {"test": ["1"]})
    (question,) = ScienceQA("qcm_lea").load(tmp_path)
    assert question.conversation.turns[0].text == "Which?\nContext: N/A\nOptions: (A) x (B) y"


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("What Is it?\nReference OCR token: A, B\nshort", "what is it?"),
        ("Reference OCR token: A\nWhat?\nshort", "what?"),
        ("What?\nshort", "what?"),
        ("OCR tokens: a. Question: What\nnow? Short answer:", "what\nnow?"),
        ("What?", None),
        ("a\nb\nc", None),
        ("OCR tokens: a", None),
    ],
)
def test_textvqa_prompts(prompt: str, asked: str | None) -> None:
    assert asked_by(prompt) == asked


def test_textvqa_counts_the_answers_there_are(put: Put, tmp_path: Path) -> None:
    items = [
        {"question_id": n, "image_id": "i", "question": f"what {n}?", "answers": ["x"] * 10} for n in range(4)
    ]  # fmt: skip
    put("TextVQA_0.5.1_val.json", {"data": items})
    put("llava_textvqa_val_v051_ocr.jsonl", [{"question_id": "i", "text": f"What {n}?\ns"} for n in range(4)])
    questions = TextVQA().load(tmp_path)
    texts = [(0, "x"), (0, "y"), (0, "X."), (1, "y")]
    answers = [{"question_id": "i", "prompt": f"What {n}?\ns", "text": text} for n, text in texts]
    official, strict = both(TextVQA, questions, answers)
    assert (official.score, strict.score) == (0.5, 0.25)
    assert (official.missing, official.duplicates) == (2, 2)
    stopped = score(TextVQA(), questions, [*answers, answers[0] | {"prompt": "odd"}])
    assert (stopped.score, stopped.metrics["official_stops"]) == (0.25, 1.0)


def seed_item(n: int, kind: int, answer: str) -> dict[str, Any]:
    data_type = "image" if kind < 3 else "video"
    item = {"question_id": f"{n}", "question_type_id": kind, "data_type": data_type, "data_id": "p", "answer": answer}
    return item | {"question": "q", **{f"choice_{letter}": letter for letter in "abcd"}}


def test_seed_bench(put: Put, tmp_path: Path) -> None:
    kinds = {"Scene": 1, "Count": 2, "Action": 3}
    items = [seed_item(n, kind, "A") for n, kind in enumerate((1, 1, 2, 3))]
    put("SEED-Bench.json", {"questions": items, "question_type": kinds})
    questions = SeedBench().load(tmp_path)
    assert questions[3].conversation.turns[0].text.startswith("<image>\nq\nA. a\nB. b\nC. c\nD. d\nAnswer with")
    answers = [{"question_id": n, "text": text} for n, text in ((0, "A"), (1, "A "), (3, "B"), (3, "A"))]
    official, _ = both(SeedBench, questions, answers)
    expected = {"image": 100 / 3, "video": 100, "Scene": 50, "Count": 0, "Action": 100, "strict": 50}
    assert official.metrics == pytest.approx(expected)
    assert (official.score, official.missing, official.duplicates, official.unparsed) == (50.0, 1, 1, 1)
    # The official code keeps no count for a type without a right or missing answer, and then asks for it.
    stopped = score(SeedBench(), questions, [*answers, {"question_id": 2, "text": "D"}])
    assert stopped.metrics["official_stops"] == 1.0


def test_vizwiz_leaves_the_annotators_answers_as_they_are(put: Put, tmp_path: Path) -> None:
    assert vizwiz_accuracy("coke", ["Coke"] * 10) == 0.0
    assert vizwiz_accuracy("The coke!", ["coke"] * 2 + ["x"] * 8) == pytest.approx(0.6)
    said = [{"answer": "2", "answer_confidence": "yes"}] * 10
    put("val.json", [{"image": f"VizWiz_val_{n}.jpg", "question": "What?", "answers": said} for n in range(2)])
    questions = VizWiz().load(tmp_path)
    assert questions[1].conversation.turns[0].text == (
        "<image>\nWhat?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    result = score(VizWiz(), questions, [{"question_id": 1, "text": "Two."}])
    assert (result.score, result.missing, result.metrics["official_stops"]) == (50.0, 1, 1.0)
    put("llava_val.jsonl", [{"question_id": 10 + n, "image": f"VizWiz_val_{n}.jpg"} for n in range(2)])
    assert [q.id for q in VizWiz().load(tmp_path)] == ["10", "11"]


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        (" no", "no"),
        ("Nope", "no"),
        ("a no", "no"),
        ("the no", "other"),
        ("YES!", "yes"),
        ("", "other"),
    ],
)
def test_mme_reads_four_characters(answer: str, read: str) -> None:
    assert yes_no_or_other(answer) == read


@given(st.lists(st.sampled_from(["x", "X.", "the y", "y", "2", "two"]), min_size=10, max_size=10), st.text(max_size=3))
def test_leave_one_out_is_the_mean_over_annotators(answers: list[str], said: str) -> None:
    said = said if len(said) > 1 else answers[0]
    forms, own = [normalize_m4c(a) for a in answers], normalize_m4c(said)
    nine = [min(1.0, sum(form == own for j, form in enumerate(forms) if j != i) / 3) for i in range(10)]
    assert m4c_accuracy(said, answers) == pytest.approx(sum(nine) / 10)
