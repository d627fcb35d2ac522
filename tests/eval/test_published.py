"""Real answers of LLaVA-1.5-13B: our scores are those of the official code."""

import csv
import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from llavakit.base.files import read_jsonl
from llavakit.eval.benchmark import Benchmark, Result
from llavakit.eval.run import over_runs, score, submission
from llavakit.eval.tasks.llava_bench_in_the_wild import LlavaBench
from llavakit.eval.tasks.mm_vet import MMVet
from llavakit.eval.tasks.mmbench import MMBench
from llavakit.eval.tasks.mme import Mme
from llavakit.eval.tasks.pope import Pope
from llavakit.eval.tasks.records import Records
from llavakit.eval.tasks.scienceqa import ScienceQA
from llavakit.eval.tasks.vizwiz import VizWiz
from llavakit.eval.tasks.vqav2 import VqaV2


def run(benchmark: Benchmark, shared: Path) -> Result:
    folder = shared / "published_answers" / benchmark.name
    questions = benchmark.load(folder)
    answers = read_jsonl(folder / "answers.jsonl")
    # What we would ask is what was asked, to the letter.
    asked = [{key: answer[key] for key in benchmark.record(questions[0])} for answer in answers]
    ours = [benchmark.record(question) for question in questions]
    assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, asked))
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
    assert result.unparsed == 38


def test_mme(shared: Path) -> None:
    result = run(Mme(), shared)
    for name in ("perception", "cognition"):
        assert result.metrics[name] == pytest.approx(expected(shared)["mme"][name], abs=1e-6)
    assert result.score == result.metrics["strict"] == result.metrics["perception"]


def test_mmbench(shared: Path) -> None:
    """The upload serves as annotation; it has no hints, which come first in what was asked."""
    folder = shared / "published_answers" / "mmbench"
    questions, answers = MMBench().load(folder), read_jsonl(folder / "answers.jsonl")
    for question, answer in zip(questions, answers, strict=True):
        assert answer["prompt"].endswith(MMBench().record(question)["prompt"])
    result = score(MMBench(), questions, answers)
    assert result.missing == result.duplicates == 0
    figures = expected(shared)["mmbench"]
    assert result.score == pytest.approx(figures["circular_accuracy"], abs=1e-9)
    assert result.metrics["vanilla"] == pytest.approx(figures["vanilla_unrotated"], abs=1e-9)
    assert result.metrics["groups"] == figures["groups"]


def test_the_published_uploads_byte_for_byte(shared: Path) -> None:
    folder = shared / "published_answers" / "mmbench"
    content = submission(MMBench(), folder, read_jsonl(folder / "answers.jsonl"))
    name = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(io.BytesIO(content)) as ours, zipfile.ZipFile(folder / "llava-v1.5-13b.xlsx") as theirs:
        assert ours.read(name) == theirs.read(name)
    folder = shared / "published_answers" / "vizwiz_conversion"
    content = submission(VizWiz(), folder, read_jsonl(folder / "answers.jsonl"))
    assert content == (folder / "expected_upload.json").read_bytes()


def test_llava_bench(shared: Path) -> None:
    folder = shared / "published_answers" / "llava_bench"
    results = []
    for model, number in (("13b", 1), ("13b", 2), ("13b", 3), ("7b", 1)):
        lines = read_jsonl(folder / f"llava-v1.5-{model}-eval{number}.jsonl")
        results.append(score(LlavaBench(), LlavaBench().annotations(folder, lines), lines))
        assert results[-1].score == expected(shared)["llava_bench"][f"{model}_eval{number}_all"]
    published = over_runs(results[:3])
    assert (round(published.score, 1), published.count, published.missing) == (72.5, 60, 0)
    assert published.metrics["spread"] == pytest.approx(0.309, abs=1e-3)


@pytest.mark.parametrize(("model", "runs"), [("13b", 1), ("13b", 3), ("7b", 1), ("7b", 3)])
def test_mm_vet(shared: Path, model: str, runs: int) -> None:
    folder = shared / "published_answers" / "mm-vet"
    records = MMVet().answers(folder / f"llava-v1.5-{model}_gpt-4-grade-{runs}runs.json")
    result = score(MMVet(), MMVet().annotations(folder, records), records)
    with open(folder / f"llava-v1.5-{model}_gpt-4-cap-score-{runs}runs.csv") as file:
        (row,) = [row for row in csv.DictReader(file) if row[""] == f"llava-v1.5-{model}"]
    assert (result.score, result.metrics["std"]) == (float(row["total"]), float(row["std"]))


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
