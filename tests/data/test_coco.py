"""A picture of COCO is found under its names of 2014 and 2017, whichever the records use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from llavakit.data.coco import coco_folder
from llavakit.data.doctor.records import examine
from llavakit.data.sources.llava import LlavaSource
from llavakit.data.stream import Item
from llavakit.data.tars import write_shards

NEW, OLD, VAL = (
    "coco/train2017/000000000009.jpg",
    "coco/train2014/COCO_train2014_000000000009.jpg",
    "coco/val2014/COCO_val2014_000000000009.jpg",
)


@pytest.mark.parametrize(
    ("named", "there"),
    [(NEW, NEW), (NEW, OLD), (NEW, VAL), (OLD, NEW), (OLD, OLD), (NEW, "coco/train2014/" + NEW[-16:])],
)
@pytest.mark.parametrize("bare", [False, True])
def test_either_name_is_found(tmp_path: Path, named: str, there: str, bare: bool) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / there)
    images, name = ((tmp_path / named).parent, Path(named).name) if bare else (tmp_path, named)
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A boat."}]
    record = {"id": 9, "image": name, "conversations": said}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    source = LlavaSource(tmp_path / "a.json", images)
    assert source[0].images[0].source == tmp_path / there
    assert examine(Item(0, 1, record), images, None)["images"] == [str(tmp_path / there)]
    assert write_shards(source, tmp_path / "shards", 1).samples == 1
    assert coco_folder((tmp_path / named).parent)


def test_another_picture_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / OLD).parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / OLD)
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A boat."}]
    names = ["coco/train2017/000000000010.jpg", "vg/000000000009.jpg"]
    (tmp_path / "a.json").write_text(json.dumps([{"image": name, "conversations": said} for name in names]))
    source = LlavaSource(tmp_path / "a.json", tmp_path)
    assert [source[i].images[0].source for i in range(2)] == [tmp_path / name for name in names]
