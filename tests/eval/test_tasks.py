"""The official benchmarks, on small files of the true format."""

from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import ImageRef
from llavakit.eval.benchmark import Question, text_of
from llavakit.eval.run import score
from llavakit.eval.tasks.gqa import Gqa
from llavakit.eval.tasks.pope import Pope
from llavakit.eval.tasks.scienceqa import ScienceQA
from llavakit.eval.tasks.textvqa import TextVQA
from llavakit.eval.tasks.vqav2 import VqaV2

from .conftest import Put

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def picture(question: Question) -> Path:
    ref = question.conversation.images[0]
    assert isinstance(ref, ImageRef)
    assert isinstance(ref.source, Path)
    return ref.source


def put_vqav2(put: Put, split: str, folder: str = "") -> None:
    questions = [{"image_id": 7, "question": "Is it?", "question_id": 7001}]
    answers = [{"answer": "yes" if n else "no", "answer_id": n} for n in range(10)]
    truths = [{"question_id": 7001, "answer_type": "yes/no", "answers": answers}]
    name = f"mscoco_{split}"
    put(f"{folder}v2_OpenEnded_{name}_questions.json", {"data_subtype": split, "questions": questions})
    put(f"{folder}v2_{name}_annotations.json", {"data_subtype": split, "annotations": truths})


def test_vqav2(put: Put, tmp_path: Path) -> None:
    put_vqav2(put, "train2014")
    put_vqav2(put, "val2014")
    put("val2014/COCO_val2014_000000000007.jpg")
    (question,) = VqaV2().load(tmp_path)
    assert text_of(question) == f"<image>\nIs it?\n{SHORT}"
    assert picture(question) == tmp_path / "val2014/COCO_val2014_000000000007.jpg"
    result = score(VqaV2(), [question], [{"question_id": 7001, "text": "Yes"}])
    assert (result.score, result.metrics) == (100.0, {"yes/no": 100.0, "strict": 100.0})
    assert VqaV2().record(question) == {"question_id": 7001, "prompt": f"Is it?\n{SHORT}"}


def test_vqav2_asks_which_of_several_splits(put: Put, tmp_path: Path) -> None:
    put_vqav2(put, "train2014")
    put_vqav2(put, "minival2014")
    with pytest.raises(BadRequest, match="several splits"):
        VqaV2().load(tmp_path)


def test_vqav2_names_the_file_it_misses(put: Put, tmp_path: Path) -> None:
    put("v2_OpenEnded_mscoco_val2014_questions.json", {"data_subtype": "val2014", "questions": []})
    with pytest.raises(BadRequest, match=r"no v2_mscoco_val2014_annotations\.json in"):
        VqaV2().load(tmp_path)


def test_gqa(put: Put, tmp_path: Path) -> None:
    item = {"imageId": "n1", "question": "What?", "answer": "left", "types": {"structural": "query"}}
    put("gqa/testdev_balanced_questions.json", {"20": item, "21": item | {"types": {"structural": "verify"}}})
    put("gqa/images/n1.jpg")
    questions = Gqa().load(tmp_path)
    assert picture(questions[0]) == tmp_path / "gqa/images/n1.jpg"
    answers = [{"question_id": "20", "text": "Left."}, {"question_id": "21", "text": "right"}]
    result = score(Gqa(), questions, answers)
    assert (result.score, result.metrics) == (50.0, {
        "binary": 0.0, "open": 100.0, "structural query": 100.0, "structural verify": 0.0, "words 1": 50.0,
        "strict": 50.0,
    })  # fmt: skip


def put_pope(put: Put, folder: str) -> None:
    for category in ("random", "popular", "adversarial"):
        item = {"image": "a.jpg", "text": "Is there a cat in the image?"}
        lines = [item | {"question_id": n, "label": label} for n, label in ((1, "yes"), (2, "no"))]
        put(f"{folder}coco_pope_{category}.json", lines)


@pytest.mark.parametrize("folder", ["", "coco/", "pope/coco/"])
def test_pope(put: Put, tmp_path: Path, folder: str) -> None:
    put_pope(put, folder)
    questions = Pope().load(tmp_path)
    assert [q.id for q in questions] == ["10000001", "10000002", "20000001", "20000002", "1", "2"]
    answers = [{"question_id": int(q.id), "text": "Yes"} for q in questions]
    result = score(Pope(), questions, answers)
    assert result.score == pytest.approx(2 / 3)
    assert result.metrics["random_yes_ratio"] == 1.0


def test_pope_takes_llavas_ids_and_refuses_other_questions(put: Put, tmp_path: Path) -> None:
    put_pope(put, "coco/")
    lines = [
        {"question_id": f"{category}{n}", "image": "a.jpg", "category": category}
        for category in ("popular", "random", "adversarial")
        for n in (1, 2)
    ]
    put("llava_pope_test.jsonl", lines)
    assert Pope().load(tmp_path)[0].id == "random1"
    put("llava_pope_test.jsonl", lines[:-1])
    with pytest.raises(BadRequest, match="adversarial"):
        Pope().load(tmp_path)


def test_pope_names_the_missing_category(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"coco_pope_random\.json"):
        Pope().load(tmp_path)


def test_scienceqa_builds_the_published_prompt(put: Put, tmp_path: Path) -> None:
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": None}
    put("problems.json", {"1": problem, "2": problem | {"hint": "See  here.", "image": "image.png"}, "3": problem})
    put("pid_splits.json", {"test": ["1", "2"]})
    put("images/test/2/image.png")
    one, two = ScienceQA().load(tmp_path)
    assert text_of(one) == f"Which?\nA. x\nB. y\n{LETTER}"
    assert text_of(two) == f"<image>\nContext: See here.\nWhich?\nA. x\nB. y\n{LETTER}"
    assert picture(two) == tmp_path / "images/test/2/image.png"
    result = score(ScienceQA(), [one, two], [{"question_id": "1", "text": "B"}, {"question_id": "2", "text": "?"}])
    assert result.metrics == {"accuracy": 50.0, "img_accuracy": 0.0, "strict": 50.0}
    assert result.unparsed == 1


def test_scienceqa_without_any_text_says_what_to_do(put: Put, tmp_path: Path) -> None:
    put("problems_min.json", {"1": {"choices": ["x", "x"], "answer": 1}})
    put("pid_splits.json", {"test": ["1"]})
    with pytest.raises(BadRequest, match="llava_test_CQM-A"):
        ScienceQA().load(tmp_path)
    # Scoring needs no text.
    (question,) = ScienceQA().annotations(tmp_path, [])
    answer = {"question_id": "1", "prompt": "<image>\nWhich?", "text": "B"}
    result = score(ScienceQA(), [question], [answer])
    assert result.metrics == {"accuracy": 100.0, "img_accuracy": 100.0, "strict": 100.0}


def put_textvqa(put: Put) -> None:
    answers = ["dakota"] * 8 + ["clos", "bos"]
    items = [
        {"question_id": n, "image_id": "ab", "question": text, "answers": answers}
        for n, text in enumerate(("what is it?", "who made it?"), 1)
    ]
    put("TextVQA_0.5.1_val.json", {"data": items})


def test_textvqa_protocols(put: Put, tmp_path: Path) -> None:
    put_textvqa(put)
    with pytest.raises(BadRequest, match=r"llava_textvqa_val_v051_ocr\.jsonl or TextVQA_Rosetta"):
        TextVQA().load(tmp_path)
    assert len(TextVQA().annotations(tmp_path, [])) == 2  # scoring needs no OCR tokens
    assert text_of(TextVQA("no_ocr").load(tmp_path)[0]) == f"<image>\nWhat is it?\n{SHORT}"
    put("TextVQA_Rosetta_OCR_v0.2_val.json", {"data": [{"image_id": "ab", "ocr_tokens": ["DA", "KOTA"]}]})
    built = f"What is it?\nReference OCR token: DA, KOTA\n{SHORT}"
    assert text_of(TextVQA().load(tmp_path)[0]) == f"<image>\n{built}"
    texts = [built, f"Who made it?\nReference OCR token: X\n{SHORT}"]
    put("llava_textvqa_val_v051_ocr.jsonl", [{"question_id": "ab", "text": text} for text in texts])
    questions = TextVQA("ocr").load(tmp_path)
    assert text_of(questions[1]) == f"<image>\n{texts[1]}"
    # LLaVA's question_id is the image's, so only the prompt tells the two answers apart.
    answers = [{"question_id": "ab", "prompt": texts[1], "text": "Clos"}, TextVQA().record(questions[0])]
    result = score(TextVQA(), questions, [answers[0], answers[1] | {"text": "Dakota."}])
    assert result.score == pytest.approx((0.3 + 1) / 2)
    assert (result.protocol, result.missing) == ("official", 0)


def test_an_unknown_protocol_suggests_the_nearest() -> None:
    with pytest.raises(BadRequest, match="did you mean 'no_ocr'"):
        TextVQA("noocr")


def test_a_record_of_another_format_is_no_traceback(put: Put, tmp_path: Path) -> None:
    put("testdev_balanced_questions.json", {"20": {"q": "What?"}})
    with pytest.raises(BadRequest, match="has no 'imageId'"):
        Gqa().load(tmp_path)
    with pytest.raises(BadRequest, match="no file or folder"):
        Gqa().load(tmp_path / "nowhere")
