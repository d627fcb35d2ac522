"""The data set on disk: whole, the same whatever the number of workers, and readable by the benchmarks' loaders."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.world.ask.table import CAPTION, INGREDIENTS
from llavakit.world.build import build

SMALL = {
    "train": 12,
    "test": 8,
    "side": 64,
    "conversations": 20,
    "questions_per_ingredient": 10,
    "benchmark_questions": 9,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "w"
    return out, build(out, 5, workers=1, **SMALL)


def hashes(folder):
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_bytes_whatever_the_workers(world, tmp_path, monkeypatch):
    monkeypatch.setattr("llavakit.world.build._CHUNK", 5)
    build(tmp_path / "w", 5, workers=2, **SMALL)
    assert hashes(tmp_path / "w") == hashes(world[0])


def test_everything_is_there(world):
    out, summary = world
    assert summary["images"] == {"train": 12, "test": 8}
    assert len(list((out / "images/train").glob("*.jpg"))) == 12
    align = json.loads((out / "align.json").read_text())
    assert len(align) == 12
    for name in INGREDIENTS:
        records = json.loads((out / f"tune/{name}.json").read_text())
        assert len(records) == summary["tune"][name]
        assert all((out / r["image"]).is_file() for r in records if "image" in r)
    for name in (CAPTION.name, *INGREDIENTS):
        lines = [json.loads(line) for line in (out / f"test/{name}.jsonl").read_text().splitlines()]
        assert len(lines) == 10
        assert all(line["image"] is None or (out / line["image"]).is_file() for line in lines)
    for name in ("lookup", "talk", "lists", "chat", "regions"):
        assert len(json.loads((out / f"words/{name}.json").read_text())) == 20
    with Image.open(out / "images/train/00000.jpg") as picture:
        assert max(picture.size) == 64


def test_benchmarks_have_the_official_fields(world):
    home = world[0] / "benchmarks"
    asked = json.loads((home / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json").read_text())
    truth = json.loads((home / "vqav2/v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    assert len(asked["questions"]) == 9 and asked["data_subtype"] == "val2014"
    for question, annotation in zip(asked["questions"], truth, strict=True):
        assert question["question_id"] == annotation["question_id"] and len(annotation["answers"]) == 10
        assert annotation["answer_type"] in ("yes/no", "number", "other")
        assert (home / f"vqav2/val2014/COCO_val2014_{question['image_id']:012d}.jpg").is_file()
    assert len({question["question_id"] for question in asked["questions"]}) == 9

    gqa = json.loads((home / "gqa/testdev_balanced_questions.json").read_text())
    assert len(gqa) == 9 and all((home / f"gqa/images/{q['imageId']}.jpg").is_file() for q in gqa.values())
    assert all({"question", "answer", "fullAnswer", "types", "isBalanced"} <= set(q) for q in gqa.values())

    for category in ("random", "popular", "adversarial"):
        lines = (home / f"pope/coco/coco_pope_{category}.json").read_text().splitlines()
        items = [json.loads(line) for line in lines]
        assert [item["question_id"] for item in items] == list(range(1, 10))
        assert [item["label"] for item in items] == ["yes", "no"] * 4 + ["yes"]
        assert all((home / "pope/val2014" / item["image"]).is_file() for item in items)

    text = json.loads((home / "textvqa/TextVQA_0.5.1_val.json").read_text())["data"]
    read = json.loads((home / "textvqa/TextVQA_Rosetta_OCR_v0.2_val.json").read_text())["data"]
    tokens = {item["image_id"]: [token.lower() for token in item["ocr_tokens"]] for item in read}
    assert len(text) == 9 and all(len(item["answers"]) == 10 for item in text)
    assert all(item["answers"][0] in tokens[item["image_id"]] for item in text)
    assert all((home / f"textvqa/train_images/{item['image_id']}.jpg").is_file() for item in text)

    problems = json.loads((home / "scienceqa/problems.json").read_text())
    assert json.loads((home / "scienceqa/pid_splits.json").read_text())["test"] == list(problems)
    assert len(problems) == 9 and {problem["image"] for problem in problems.values()} == {None, "image.png"}
    for id, problem in problems.items():
        assert 0 <= problem["answer"] < len(problem["choices"]) == 4
        if problem["image"]:
            with Image.open(home / f"scienceqa/images/test/{id}/image.png") as picture:
                assert picture.format == "PNG"


def test_reused_or_refused(world, tmp_path):
    out, summary = world
    before = hashes(out)
    assert build(out, 5, **SMALL) == summary
    with pytest.raises(BadRequest, match="another seed"):
        build(out, 6, **SMALL)
    assert hashes(out) == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadRequest, match="not built by this command"):
        build(tmp_path / "mine", 5, **SMALL)
    with pytest.raises(BadRequest, match="at least one picture"):
        build(tmp_path / "none", 5, **{**SMALL, "train": 0})


def test_nothing_is_left_of_a_build_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("llavakit.world.build.write_benchmarks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(tmp_path / "w", 5, workers=1, **SMALL)
    assert list(tmp_path.iterdir()) == []
