"""The benchmarks beyond LLaVA-1.5's twelve, and the hub's Parquet files."""

import io
import json
import random
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.eval.benchmark import Benchmark, Question, text_of
from llavakit.eval.boxes import first_box, squared
from llavakit.eval.order import picture_names
from llavakit.eval.run import BENCHMARKS, score
from llavakit.eval.tasks.captions import Captions
from llavakit.eval.tasks.chartqa import ChartQA
from llavakit.eval.tasks.docvqa import DocVQA, anls, distance
from llavakit.eval.tasks.refcoco import RefCoco
from llavakit.image.open import open_image

from .conftest import Put

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def encoded(width: int, height: int = 2) -> dict[str, Any]:
    """A picture as the hub's files hold it."""
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def put_parquet(path: Path, rows: list[dict[str, Any]], group: int = 2) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)


HUB: dict[str, tuple[list[dict[str, Any]], list[str], str, float]] = {
    # name: rows without their picture, right answers, first prompt, score of the right answers
    "vqav2": (
        [{"question_id": n, "question": "Is it?", "answer_type": "yes/no", "image_id": n,
          "answers": [{"answer": "yes", "answer_confidence": "yes", "answer_id": i} for i in range(10)]}
         for n in (7, 8, 9)],
        ["Yes"] * 3, f"Is it?\n{SHORT}", 100.0,
    ),
    "vizwiz": (
        [{"question_id": f"VizWiz_val_{n}", "question": "What?", "category": "other", "answers": ["cup"] * 10}
         for n in range(3)],
        ["A cup."] * 3,
        f"What?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}", 100.0,
    ),
    "textvqa": (
        [{"image_id": "a", "question_id": n, "question": f"what {n}?", "answers": ["x"] * 10, "ocr_tokens": ["X", "Y"]}
         for n in range(3)],
        ["x"] * 3, f"What 0?\nReference OCR token: X, Y\n{SHORT}", 1.0,
    ),
    "pope": (
        [{"id": str(n), "question_id": str(n), "question": "Is there a cat in the image?", "answer": "yes",
          "category": category, "image_source": f"COCO_{n}"}
         for category in ("adversarial", "popular", "random") for n in (1, 2)],
        ["Yes"] * 6, f"Is there a cat in the image?\n{SHORT}", 1.0,
    ),
    "scienceqa": (
        [{"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "grade": "grade2",
          "subject": "social science"} for _ in range(3)],
        ["B"] * 3, f"Which?\nA. x\nB. y\n{LETTER}", 100.0,
    ),
    "seed_bench": (
        [{"question_id": str(n), "question": "q", "answer": "C", "data_type": "video", "question_type_id": 12,
          **{f"choice_{letter}": letter for letter in "abcd"}} for n in range(3)],
        ["C"] * 3, f"q\nA. a\nB. b\nC. c\nD. d\n{LETTER}", 100.0,
    ),
    "mmbench": (
        [{"index": n, "question": "Which?", "hint": "nan", "A": "cat", "B": "dog", "C": "nan", "D": "nan",
          "answer": "B", "category": "k", "L2-category": "l"} for n in range(3)],
        ["B"] * 3, f"Which?\nA. cat\nB. dog\n{LETTER}", 1.0,
    ),
    "mme": (
        [{"question_id": f"{task}/{picture}.png", "category": task, "question": f"Is it {n}?  Please answer yes or no.",
          "answer": right} for task in ("existence", "OCR") for picture in "ab"
          for n, right in enumerate(("Yes", "No"))],
        ["Yes", "No"] * 4, f"Is it 0?\n{SHORT}", 400.0,
    ),
    "ai2d": (
        [{"question": "Which?", "options": ["x", "y"], "answer": "1"} for _ in range(3)],
        ["B", "b.", "B. y"], f"Which?\nA. x\nB. y\n{LETTER}", 100.0,
    ),
    "mmstar": (
        [{"index": n, "question": "Which?\nOptions: A: x, B: y", "answer": "A", "category": "math",
          "l2_category": "geometry"}
         for n in range(4)],
        ["A: x", "(a)", "The answer is A", "Option B"], f"Which?\nOptions: A: x, B: y\n{LETTER}", 75.0,
    ),
    "chartqa": (
        [{"type": "human_test", "question": "How many?", "answer": right} for right in ("20", "Yes", "0")],
        ["20.9", "yes", "0.0"], f"How many?\n{SHORT}", 200 / 3,
    ),
    "docvqa": (
        [{"questionId": str(n), "question": "Who?", "answers": ["John  Smith", "J. Smith"]} for n in range(3)],
        ["john smith", "j. smyth", "nobody"], f"Who?\n{SHORT}", (1 + 7 / 8) / 3,
    ),
}  # fmt: skip


SHARED = {"mme": [0, 0, 2, 2, 4, 4, 6, 6], "textvqa": [0, 0, 0], "pope": [0, 0, 0, 1, 1, 1]}
"""Which row's copy of the picture is shown, where rows tell that they share one."""


def tallies_make_the_headline(benchmark: Benchmark, questions: list[Question], texts: list[str]) -> None:
    """Of every mixture of right, wrong and missing answers."""
    rng = random.Random(0)
    for _ in range(5):
        said = [(q, rng.choice([text, "no", "A", ""])) for q, text in zip(questions, texts, strict=True)]
        latest = {q.id: benchmark.record(q) | {"text": text} for q, text in said if rng.random() < 0.8}
        counted = benchmark.strict(questions, latest)
        assert counted.tallies is not None
        sums = defaultdict(lambda: np.zeros(()))
        for tally in counted.tallies:
            for key, value in tally.items():
                sums[key] = sums[key] + value
        assert float(benchmark.headline(sums)) == pytest.approx(counted.score, abs=1e-9)


@pytest.mark.parametrize("name", HUB)
def test_the_hubs_copy(name: str, tmp_path: Path) -> None:
    rows, texts, prompt, expected = HUB[name]
    several = name == "seed_bench"  # frames of a video: the middle one is asked about
    pictures: list[Any] = [
        [encoded(1), encoded(n + 3), encoded(2)] if several else encoded(n + 3) for n in range(len(rows))
    ]
    put_parquet(
        tmp_path / "data/test-00000-of-00001.parquet", [r | {"image": p} for r, p in zip(rows, pictures, strict=True)]
    )
    benchmark: Benchmark = BENCHMARKS[name]
    questions = benchmark.load(tmp_path)
    assert text_of(questions[0]) == f"<image>\n{prompt}"
    seen = SHARED.get(name, range(len(rows)))
    widths = [open_image(q.conversation.images[0].source).width for q in questions]
    assert sorted(widths) == [n + 3 for n in seen]
    assert len(set(picture_names(questions).values())) == len(set(seen))
    answers = [benchmark.record(q) | {"text": text} for q, text in zip(questions, texts, strict=True)]
    result = score(benchmark, questions, answers)
    assert result.score == pytest.approx(expected)
    assert result.missing == result.duplicates == 0
    tallies_make_the_headline(benchmark, questions, texts)


@pytest.mark.parametrize(
    ("name", "files", "asked"),
    [
        ("vqav2", ("data/test-0", "data/testdev-0", "data/validation-0"), "data/validation-0"),
        ("vqav2", ("data/test-0", "data/testdev-0"), "data/testdev-0"),
        ("textvqa", ("data/train-0", "data/validation-0"), "data/validation-0"),
        ("mmbench", ("cc/test-0", "cn/dev-0", "en/dev-0", "en/test-0"), "en/dev-0"),
        ("mmbench_cn", ("MMBench/cn/dev-0", "MMBench/cn/test-0", "MMBench/en/dev-0"), "MMBench/cn/dev-0"),
        ("scienceqa", ("ScienceQA-FULL/test-0", "ScienceQA-FULL/train-0", "ScienceQA-IMG/test-0"),
         "ScienceQA-FULL/test-0"),
        ("pope", ("Full/adversarial-0", "data/test-0"), "data/test-0"),
        ("docvqa", ("DocVQA/test-0", "DocVQA/validation-0", "InfographicVQA/validation-0"), "DocVQA/validation-0"),
        ("ai2d", ("mine",), "mine"),
    ],
)  # fmt: skip
def test_of_a_copy_with_all_splits_one_is_asked(name: str, files: tuple[str, ...], asked: str, tmp_path: Path) -> None:
    rows, texts, _, _ = HUB[name.removesuffix("_cn")]
    for file in files:
        width = 5 if file == asked else 3
        put_parquet(tmp_path / f"{file}.parquet", [row | {"image": encoded(width)} for row in rows])
    questions = BENCHMARKS[name].load(tmp_path)
    assert [open_image(q.conversation.images[0].source).width for q in questions] == [5] * len(texts)


def test_a_problem_without_a_picture_in_the_hubs_copy(tmp_path: Path) -> None:
    rows = [HUB["scienceqa"][0][0] | {"image": picture} for picture in (encoded(3), None, encoded(4))]
    put_parquet(tmp_path / "test.parquet", rows)
    questions = BENCHMARKS["scienceqa"].load(tmp_path)
    assert [len(q.conversation.images) for q in questions] == [1, 0, 1]
    assert [q.group for q in questions] == ["img", "text", "img"]


def test_gqa_in_the_hubs_copy(tmp_path: Path) -> None:
    put_parquet(tmp_path / "testdev_balanced_images/a.parquet", [{"id": "n1", "image": encoded(5)}])
    row = {"id": "20", "imageId": "n1", "question": "What?", "answer": "left", "types": {"structural": "query"}}
    put_parquet(tmp_path / "testdev_balanced_instructions/a.parquet", [row])
    (question,) = BENCHMARKS["gqa"].load(tmp_path)
    assert (question.group, open_image(question.conversation.images[0].source).width) == ("open", 5)


def test_mmmu(tmp_path: Path) -> None:
    first = {"id": "validation_Art_Theory_1", "question": "<image 2> or <image 1>?", "options": "['a <image 1>', 'b']",
             "answer": "B", "question_type": "multiple-choice"}  # fmt: skip
    second = first | {"id": "validation_Math_2", "question": "How much?", "options": "[]", "answer": "['4', 'four']",
                      "question_type": "open"}  # fmt: skip
    rows = [first | {"image_1": encoded(3), "image_2": encoded(4)}, second | {"image_1": encoded(5), "image_2": None}]
    put_parquet(tmp_path / "Art/validation-0.parquet", rows)
    questions = BENCHMARKS["mmmu"].load(tmp_path)
    assert text_of(questions[0]) == f"<image>\n<image>\n<image 2> or <image 1>?\nA. a <image 1>\nB. b\n\n{LETTER}"
    assert [open_image(ref.source).width for ref in questions[0].conversation.images] == [3, 4]
    texts = ["I say (B)", "so the answer is 4.0"]
    answers = [{"question_id": q.id, "text": text} for q, text in zip(questions, texts, strict=True)]
    result = score(BENCHMARKS["mmmu"], questions, answers)
    assert result.metrics == {"Art_Theory": 1.0, "Math": 1.0, "strict": 1.0}


def test_chartqa_files(put: Put, tmp_path: Path) -> None:
    put("test_human.json", [{"imgname": "1.png", "query": "How many?", "label": "5%"}])
    put("test_augmented.json", [{"imgname": "2.png", "query": "Which?", "label": "Blue"}])
    put("png/2.png")
    questions = ChartQA().load(tmp_path)
    assert questions[1].conversation.images[0].source == tmp_path / "png/2.png"
    result = score(ChartQA(), questions, [{"question_id": 0, "text": "0.0525"}, {"question_id": 1, "text": "red"}])
    assert result.metrics == {"human_test": 100.0, "augmented_test": 0.0, "strict": 50.0}


def test_docvqa_files(put: Put, tmp_path: Path) -> None:
    item = {"questionId": 5, "question": "Who?", "image": "documents/a.png", "answers": ["A"]}
    put("val_v1.0.json", {"data": [item]})
    (question,) = DocVQA().load(tmp_path)
    assert score(DocVQA(), [question], [{"question_id": 5, "text": " a "}]).score == 1.0


@given(st.text("ab ", max_size=6), st.text("ab ", max_size=6), st.text("ab ", max_size=6))
def test_levenshtein_is_a_distance(a: str, b: str, c: str) -> None:
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a) <= max(len(a), len(b))
    assert distance(a, c) <= distance(a, b) + distance(b, c)


@pytest.mark.parametrize(("said", "score"), [("abcd", 1.0), ("ABCX", 0.75), ("abxy", 0.5), ("axyz", 0.0), ("", 0.0)])
def test_anls(said: str, score: float) -> None:
    assert anls(said, ["abcd"]) == score


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.1, 0.2, 0.3, 0.45]", (0.1, 0.2, 0.3, 0.45)), ("It is (1,2,3,4).", (1, 2, 3, 4)), ("[0.1, 0.2]", None),
        ("0.1 0.2 0.3 0.4", None), ("[-0.1,0,0,1] [1,1,1,1]", (-0.1, 0, 0, 1)),
    ],
)  # fmt: skip
def test_first_box(text: str, box: tuple[float, ...] | None) -> None:
    assert first_box(text) == box


def test_refcoco(put: Put, tmp_path: Path) -> None:
    lines = [
        {"image": "data/refcoco/train2014/a.jpg", "sent": "the cat", "bbox": [10, 0, 30, 20], "width": 40, "height": 20}
    ]
    put("refcoco_testA.jsonl", lines)
    (question,) = RefCoco().load(tmp_path)
    assert text_of(question).endswith("describes: the cat")
    # The picture is padded above and below by ten pixels.
    assert question.truth["box"] == squared((10, 0, 30, 20), 40, 20) == (0.25, 0.25, 0.75, 0.75)
    answers = [{"question_id": "refcoco_testA/1", "text": text} for text in ("[0.25, 0.0, 0.75, 1.0]",)]
    assert score(RefCoco(), [question], answers).metrics == {"refcoco_testA": 100.0, "mean_iou": 50.0}
    (question,) = RefCoco("in_picture").load(tmp_path)
    assert question.truth["box"] == (0.25, 0.0, 0.75, 1.0)


def test_refcoco_in_the_hubs_copy(tmp_path: Path) -> None:
    row = {"question_id": "9", "bbox": [1.0, 1.0, 2.0, 2.0], "answer": ["cat", "the cat"], "image": encoded(4, 4)}
    put_parquet(tmp_path / "testA.parquet", [row])
    questions = RefCoco().load(tmp_path)
    assert [q.id for q in questions] == ["9/0", "9/1"]
    assert questions[0].truth["box"] == (0.25, 0.25, 0.75, 0.75)


def test_captions(put: Put, tmp_path: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    said = {1: ["A dog runs.", "A brown dog runs on grass."], 2: ["Two cats sleep.", "Cats are asleep, on a bed."]}
    annotations = [{"image_id": id, "caption": text} for id, texts in said.items() for text in texts]
    images = [{"id": id, "file_name": f"{id}.jpg"} for id in (2, 1, 3)]
    put("captions_val2017.json", {"images": images, "annotations": annotations})
    questions: list[Question] = Captions().load(tmp_path)
    assert [q.id for q in questions] == ["2", "1"]
    if shutil.which("java") is None:
        with pytest.raises(BadRequest, match="needs Java"):
            score(Captions(), questions, [{"question_id": 1, "text": "A dog"}])
        return
    answers = [{"question_id": 1, "text": "a brown dog runs,\non grass!"}, {"question_id": 2, "text": "Two cats sleep"}]
    result = score(Captions(), questions, answers)
    assert result.score == pytest.approx(509.8653, abs=1e-3)
    assert score(Captions(), questions, answers[:1]).missing == 1


def test_a_benchmark_published_as_parquet_names_what_it_misses(tmp_path: Path) -> None:
    for name in ("ai2d", "mmstar", "mmmu"):
        with pytest.raises(BadRequest, match=r"\.parquet"):
            BENCHMARKS[name].load(tmp_path)


def test_every_task_tells_its_ways_of_counting() -> None:
    for name in BENCHMARKS.names():
        benchmark = BENCHMARKS[name]
        assert json.dumps(benchmark.protocols)
        assert benchmark.unit in ("percent", "fraction", "points")
