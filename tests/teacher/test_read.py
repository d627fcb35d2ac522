"""Every form in which people have captions becomes the same contexts; what is broken is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.teacher.context import Box, Context
from llavakit.teacher.read import read_contexts


def write(path: Path, value: Any) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in value) if lines else json.dumps(value))
    return path


def coco(tmp_path: Path) -> tuple[Path, Path]:
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 200, "height": 100} for n in (7, 8, 9)]
    captions = [(8, "A cat.\n"), (7, "A dog."), (8, "A  cat on a mat.")]
    boxes = [(8, [20, 10, 100, 50], 3, 0), (8, [150, 60, 50.02, 40], 4, 0), (8, [0, 0, 9, 9], 3, 1), (5, [0] * 4, 3, 0)]
    annotations = [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(captions)]
    instances = [{"image_id": i, "bbox": b, "category_id": c, "iscrowd": crowd} for i, b, c, crowd in boxes]
    names = [{"id": 3, "name": "cat"}, {"id": 4, "name": "mat"}]
    return (
        write(tmp_path / "captions.json", {"images": images, "annotations": annotations}),
        write(tmp_path / "instances.json", {"images": images, "annotations": instances, "categories": names}),
    )


def test_coco(tmp_path: Path) -> None:
    dog, cat = read_contexts(*coco(tmp_path))
    assert dog == Context("000000000007", "000000000007.jpg", ("A dog.",))
    assert cat.captions == ("A cat.", "A cat on a mat.")
    assert cat.boxes == (Box("cat", (0.1, 0.1, 0.6, 0.6)), Box("mat", (0.75, 0.6, 1.0, 1.0)))
    assert cat.text(boxes=False) == "A cat.\nA cat on a mat."
    assert cat.text(boxes=True) == (
        "A cat.\nA cat on a mat.\n\ncat: [0.100, 0.100, 0.600, 0.600]\nmat: [0.750, 0.600, 1.000, 1.000]"
    )
    assert dog.text(boxes=True) == "A dog."


CAT = Context("cat", "in/cat.jpg", ("A cat.", "A cat on a mat."))
SAID = [{"from": "human", "value": "Describe it.\n<image>"}]
FORMS: dict[str, Any] = {
    "a.json": [{"image": "in/cat.jpg", "captions": ["A cat.", "A cat on\na mat."]}],
    "b.jsonl": [{"image": "in/cat.jpg", "caption": "A cat."}, {"image": "in/cat.jpg", "caption": "A cat on a mat."}],
    "c.json": [
        {"image": "in/cat.jpg", "conversations": [*SAID, {"from": "gpt", "value": text}]} for text in CAT.captions
    ],
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_captions(tmp_path: Path, name: str) -> None:
    assert read_contexts(write(tmp_path / name, FORMS[name])) == [CAT]


@pytest.mark.parametrize(("name", "between"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables(tmp_path: Path, name: str, between: str) -> None:
    with open(tmp_path / name, "w", newline="") as file:
        csv.writer(file, delimiter=between).writerows([("image", "caption"), *((CAT.image, c) for c in CAT.captions)])
    assert read_contexts(tmp_path / name) == [CAT]


def test_caps_and_boxes(tmp_path: Path) -> None:
    record = {
        "id": "x",
        "image": "x.jpg",
        "captions": ["One."],
        "instances": [{"category": "a", "bbox": [0, 0, 1, 0.5]}],
    }
    assert read_contexts(write(tmp_path / "a.jsonl", [record])) == [
        Context("x", "x.jpg", ("One.",), (Box("a", (0.0, 0.0, 1.0, 0.5)),))
    ]


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.JPG", "JPEG")
    (tmp_path / "notes.txt").touch()
    assert read_contexts(tmp_path) == [Context("in/a", "in/a.JPG")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a.json", {"info": 1}, "not COCO's captions"),
        ("a.json", 3, "list of records"),
        ("a.json", [], "no captions"),
        ("a.jsonl", [{"caption": "x"}], "record 0.*image"),
        ("a.json", [{"image": "a.jpg", "caption": "x"}, {"image": "b.jpg"}], "record 1.*captions"),
        ("a.json", [{"image": "a", "caption": " "}], "captions"),
        (
            "a.json",
            [{"image": "a", "captions": ["x"], "instances": [{"category": "c", "bbox": [0, 0, 30, 1]}]}],
            "frac",
        ),
        ("a.json", [{"image": "a", "captions": ["x"], "instances": [{"bbox": [0, 0, 1, 1]}]}], "four numbers"),
        ("a.json", {"images": [], "annotations": [{"image_id": 4, "caption": "x"}]}, "first id 4"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, value: Any, said: str) -> None:
    with pytest.raises((BadRequest, BadRecord), match=said):
        read_contexts(write(tmp_path / name, value))
    with pytest.raises(BadRequest, match="COCO"):
        read_contexts(write(tmp_path / "list.json", [{"image": "a", "caption": "x"}]), tmp_path / "boxes.json")


def test_real_files(shared: Path) -> None:
    contexts = read_contexts(shared / "coco_captions_boxes" / "caps_boxes_coco2014_val_80.jsonl")
    assert len(contexts) == 80 and all(context.captions for context in contexts)
    assert sum(len(context.captions) for context in contexts) > 395  # two people may write the same
    assert sum(len(context.boxes) for context in contexts) > 450
    mini = shared / "coco_mini"
    contexts = read_contexts(mini / "captions_train.json", mini / "instances_train.json")
    assert len(contexts) == 80 and sum(len(context.boxes) for context in contexts) > 300
    assert all((mini / "train" / context.image).is_file() for context in contexts)
    flickr = read_contexts(shared / "flickr_1k" / "captions.csv")
    assert len(flickr) == 900 and {len(context.captions) for context in flickr} <= {4, 5}
