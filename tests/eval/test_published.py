"""Real answers of LLaVA-1.5-13B: our scores are those of the official code."""

import json
import os
from pathlib import Path

import pytest

from llavakit.base.files import read_jsonl
from llavakit.eval.benchmark import Benchmark, Result
from llavakit.eval.run import score
from llavakit.eval.tasks.pope import Pope
from llavakit.eval.tasks.records import Records
from llavakit.eval.tasks.scienceqa import ScienceQA
from llavakit.eval.tasks.vqav2 import VqaV2


def run(benchmark: Benchmark, shared: Path) -> Result:
    folder = shared / "published_answers" / benchmark.name
    questions = benchmark.load(folder)
    answers = read_jsonl(folder / "answers.jsonl")
    # What we would ask is what was asked, to the letter.
    asked = {str(a["question_id"]): {"question_id": a["question_id"], "prompt": a["prompt"]} for a in answers}
    assert {q.id: benchmark.record(q) for q in questions} == asked
    result = score(benchmark, questions, answers)
    assert result.missing == result.duplicates == 0
    return result


def expected(shared: Path) -> dict[str, dict[str, dict[str, float]]]:
    content: dict[str, dict[str, dict[str, float]]] = json.loads(
        (shared / "published_answers" / "expected.json").read_text()
    )
    return content


def test_pope(shared: Path) -> None:
    result = run(Pope(), shared)
    for category in ("random", "popular", "adversarial"):
        for name in ("f1", "accuracy"):
            assert result.metrics[f"{category}_{name}"] == pytest.approx(
                expected(shared)["pope"][category][name], abs=1e-9
            )


def test_scienceqa(shared: Path) -> None:
    result = run(ScienceQA(), shared)
    for name in ("accuracy", "img_accuracy"):
        assert result.metrics[name] == pytest.approx(expected(shared)["scienceqa"][name], abs=1e-9)
    assert result.unparsed == 5


def test_vqav2_sample_has_every_picture(shared: Path) -> None:
    questions = VqaV2().load(shared / "vqav2_sample")
    assert len(questions) == 73
    assert all(os.path.isfile(str(q.conversation.images[0])) for q in questions)


def test_llava_format_files(shared: Path) -> None:
    nlvr = Records().load(shared / "nlvr" / "llava_instruct.json")
    assert len(nlvr) == 989
    assert os.path.isfile(str(nlvr[0].conversation.images[0]))
    coco = Records().load(shared / "coco_mini" / "llava_instruct_val.json", images=shared / "coco_mini" / "val")
    assert {q.truth["metric"] for q in coco} == {"exact", "words"}
    assert all(os.path.isfile(str(q.conversation.images[0])) for q in coco)
