"""The doctor: what it finds, that it goes on after a kill, what it mends, and that it leaves the original alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from llavakit import cli
from llavakit.base.errors import BadRequest
from llavakit.data.doctor.codes import CODES
from llavakit.data.doctor.language import language
from llavakit.data.doctor.near import BITS, near_pairs
from llavakit.data.doctor.pictures import examine_picture, look
from llavakit.data.doctor.records import question_key
from llavakit.data.mixture import Mixture, SourceSpec
from tests.data.raw import llava, put


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A picture of coarse random blocks: no two seeds look alike."""
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture()
def data(tmp_path: Path) -> Path:
    """12 sound records about 12 pictures."""
    (tmp_path / "img").mkdir()
    for number in range(12):
        scene(number).save(tmp_path / "img" / f"{number}.jpg")
    records = [llava(f"r{n}", f"{n}.jpg", f"<image>\nWhat is number {n}?", f"It is the {n}.") for n in range(12)]
    return put(tmp_path / "data.json", records)


def change(path: Path, index: int, edit: Callable[[dict[str, Any]], Any]) -> None:
    records = json.loads(path.read_text())
    edit(records[index])
    put(path, records)


def examine(path: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    argv = ["data", "doctor", str(path), "--images", str(path.parent / "img"), "--workers", "0", "--json", *more]
    capsys.readouterr()
    code = cli.main(argv)
    return code, json.loads(capsys.readouterr().out)


def codes(report: dict[str, Any]) -> dict[str, int]:
    return {code: found["count"] for code, found in report["problems"].items()}


def test_a_sound_file_is_sound(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = examine(data, capsys=capsys)
    assert (code, codes(report), report["errors"]) == (0, {}, 0)
    assert report["all"]["records"] == report["images"]["files"] == 12
    assert cli.main(["data", "doctor", str(data), "--images", str(data.parent / "img"), "--workers", "0"]) == 0
    assert "Nothing is wrong." in capsys.readouterr().out


FORMS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("empty-answer", lambda r: r["conversations"][1].update(value="  ")),
    ("unanswered", lambda r: r["conversations"].append({"from": "human", "value": "And?"})),
    ("turn-order", lambda r: r["conversations"].insert(0, {"from": "gpt", "value": "Hello."})),
    ("image-count", lambda r: r["conversations"][0].update(value="What?")),
    ("image-count", lambda r: r["conversations"][0].update(value="<image> <image> What?")),
    ("image-in-answer", lambda r: r["conversations"][1].update(value="<image>")),
    ("unknown-speaker", lambda r: r["conversations"][0].update({"from": "bard"})),
    ("not-a-record", lambda r: r.pop("conversations")),
    ("not-a-record", lambda r: r.update(image=[3])),
    ("not-a-record", lambda r: r["conversations"][1].update(value=None)),
    ("missing-image", lambda r: r.update(image="nowhere.jpg")),
]


@pytest.mark.parametrize(("code", "edit"), FORMS, ids=[code for code, _ in FORMS])
def test_what_training_refuses_is_found_and_mended(
    data: Path, code: str, edit: Callable[[dict[str, Any]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    change(data, 4, edit)
    before = data.read_bytes()
    fixed = data.parent / "fixed.json"
    status, report = examine(data, "--fix", str(fixed), capsys=capsys)
    assert status == 1 and code in codes(report)
    (example,) = report["examples"][code]
    assert example["index"] == 4 and example["file"] == str(data)
    assert data.read_bytes() == before
    changes = [json.loads(line) for line in Path(f"{fixed}.changes.jsonl").read_text().splitlines()]
    assert changes and {item["index"] for item in changes} == {4}
    status, report = examine(fixed, capsys=capsys)
    assert (status, report["errors"]) == (0, 0)
    mixture = Mixture.of({"x": SourceSpec(path=str(fixed), images=str(data.parent / "img"))}, image_first=True)
    assert all(mixture.at(0, n).answered for n in range(len(mixture)))
    mended = code in ("empty-answer", "unanswered", "turn-order", "image-count")
    assert len(mixture) == (12 if mended and code != "empty-answer" else 11)


def test_a_mended_record_keeps_what_was_right(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    change(data, 0, lambda r: (r["conversations"].extend(more), r["conversations"][1].update(value="")))
    fixed = data.parent / "fixed.jsonl"
    examine(data, "--fix", str(fixed), capsys=capsys)
    first = json.loads(fixed.read_text().splitlines()[0])
    assert [turn["value"] for turn in first["conversations"]] == ["<image>\nWhy?", "So."]
    assert cli.main(["data", "doctor", str(data), "--workers", "0", "--fix", str(data)]) == 2
    assert "is the original itself" in capsys.readouterr().err


def test_broken_json_has_its_line_and_the_rest_is_read(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps(record) for record in json.loads(data.read_text())]
    lines[3] = lines[3][:-8]
    path = data.with_suffix(".jsonl")
    path.write_text("\n".join(lines))
    status, report = examine(path, "--fix", str(data.parent / "fixed.jsonl"), capsys=capsys)
    assert status == 1 and codes(report) == {"broken-json": 1}
    assert report["examples"]["broken-json"][0]["line"] == 4 and report["all"]["records"] == 12
    assert len((data.parent / "fixed.jsonl").read_text().splitlines()) == 11


def test_images(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = data.parent / "img"
    whole = (images / "1.jpg").read_bytes()
    (images / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "2.jpg").write_text("<html>404</html>")
    scene(3).convert("P").save(images / "gif", "GIF")
    (images / "gif").rename(images / "3.jpg")
    scene(4, size=(240, 180)).save(images / "5.jpg", quality=40)
    shutil.copy(images / "6.jpg", images / "7.jpg")
    change(data, 9, lambda r: r.update(image="8.jpg", conversations=json.loads(data.read_text())[8]["conversations"]))
    status, report = examine(data, capsys=capsys)
    assert status == 1
    expected = {"truncated-image": 1, "unreadable-image": 1, "wrong-type": 1, "duplicate": 1, "near-duplicate": 2}
    assert codes(report) == expected
    assert report["examples"]["wrong-type"][0]["detail"].endswith("a GIF named .jpg")
    assert report["examples"]["duplicate"][0]["detail"] == "as data.json, line 1"
    assert report["images"] == {"files": 11, "same content as another": 1}


def test_lengths_and_what_cutting_loses(data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(data, 2, lambda r: r["conversations"][1].update(value="again and " * 2000))
    change(data, 3, lambda r: r["conversations"][0].update(value="long " * 3000 + "<image>"))
    change(data, 5, lambda r: r["conversations"][1].update(value="the end </s> is near"))
    status, report = examine(data, "--tokenizer", str(checkpoint), capsys=capsys)
    assert status == 1 and codes(report) == {"refused": 1, "no-room": 1, "too-long": 1}
    assert "special token '</s>'" in report["examples"]["refused"][0]["detail"]
    total = report["all"]
    assert total["tokens cut"] > 2000 and 0 < total["supervised tokens cut"] < total["supervised tokens"]
    assert sum(count for _, count in report["histogram"]) == 11
    assert total["length"]["least"] > 16, "the picture's 16 patches count"


def test_contamination(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = data.parent / "bench"
    bench.mkdir()
    scene(0, size=(90, 68)).save(bench / "theirs.png")
    scene(100).save(bench / "other.png")
    asked = [
        ("theirs.png", "What is NUMBER 0?\nAnswer the question using a single word or phrase."),
        ("theirs.png", "Who?"),
    ]
    asked += [("other.png", "What is number 3")]
    lines = [
        {"question_id": n, "image": image, "text": text, "metric": "exact", "answers": ["x"]}
        for n, (image, text) in enumerate(asked)
    ]
    (bench / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, report = examine(data, "--bench", f"records={bench}", capsys=capsys)
    assert codes(report) == {"leak": 1, "benchmark-image": 1, "benchmark-question": 1} and status == 1
    assert report["examples"]["leak"][0]["id"] == "r0" and report["examples"]["benchmark-question"][0]["id"] == "r3"
    with pytest.raises(BadRequest, match="not of the form benchmark=folder"):
        from llavakit.data.doctor.bench import read_bench

        read_bench("pope")


def test_it_goes_on_where_it_was(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llavakit.data.doctor import examine as module

    monkeypatch.setattr(module, "RECORDS", 4)
    monkeypatch.setattr(module, "PICTURES", 4)
    change(data, 11, lambda r: r.update(image="nowhere.jpg"))
    _, whole = examine(data, "--out", str(data.parent / "whole"), capsys=capsys)
    seen: list[int] = []
    original = module.examine

    def watched(item: Any, *rest: Any) -> Any:
        if len(seen) == 9:
            raise KeyboardInterrupt
        seen.append(item.index)
        return original(item, *rest)

    out = data.parent / "out"
    monkeypatch.setattr(module, "examine", watched)
    argv = ["data", "doctor", str(data), "--images", str(data.parent / "img"), "--workers", "0", "--out", str(out)]
    assert cli.main(argv) == 130
    with open(out / "journal.jsonl", "a") as file:
        file.write('{"kind": "records 0", "chunk": 2, "rows": [{"torn')
    seen.clear()
    _, resumed = examine(data, "--out", str(out), capsys=capsys)
    assert seen == [8, 9, 10, 11], "two chunks of four were done"
    assert resumed == whole
    monkeypatch.setattr(module, "examine", original)
    change(data, 0, lambda r: r.update(id="new"))
    _, anew = examine(data, "--out", str(out), capsys=capsys)
    assert anew["all"]["records"] == 12, "another file's journal is begun anew"


def test_workers_find_the_same(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(data, 4, lambda r: r.update(image="nowhere.jpg"))
    _, alone = examine(data, "--out", str(data.parent / "a"), capsys=capsys)
    _, together = examine(data, "--out", str(data.parent / "b"), "--workers", "2", capsys=capsys)
    assert alone == together


def test_the_report_as_a_page(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(data, 4, lambda r: r.update(id="<b>bold</b>", image="nowhere.jpg"))
    examine(data, capsys=capsys)
    page = (data.parent / "data.json.doctor/report.html").read_text()
    assert "1 thing must be mended" in page and "missing-image" in page
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold" in page
    assert "http" not in page.replace("http-equiv", ""), "it needs nothing from elsewhere"


def test_real_files_are_sound(shared: Path, tmp_path: Path) -> None:
    folder = shared / "coco_mini"
    argv = ["data", "doctor", str(folder / "llava_instruct_val.json"), "--images", str(folder / "val")]
    assert cli.main([*argv, "--out", str(tmp_path), "--workers", "0"]) == 0


@given(seed=st.integers(0, 50), quality=st.integers(30, 95), width=st.integers(60, 400))
@settings(max_examples=25, deadline=None)
def test_looks_survive_size_and_compression(
    tmp_path_factory: pytest.TempPathFactory, seed: int, quality: int, width: int
) -> None:
    path = tmp_path_factory.mktemp("look") / "a.jpg"
    scene(seed, size=(width, width * 3 // 4)).save(path, quality=quality)
    mine, other = look(scene(seed)), look(scene(seed + 1000))
    found = examine_picture(str(path))["look"]
    assert mine is not None and found is not None and other is not None
    # Hard compression of a tiny copy was seen to turn 8 bits: such a one is missed, but nothing else is taken for it.
    assert (mine ^ found).bit_count() <= BITS + 3 and (mine ^ other).bit_count() > BITS


def test_flat_pictures_look_like_nothing() -> None:
    assert look(Image.new("RGB", (50, 50), "red")) is None
    drawn = Image.new("RGB", (50, 50), "red")
    ImageDraw.Draw(drawn).rectangle((5, 5, 30, 20), fill="white")
    assert look(drawn) is not None


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_near_pairs_are_all_pairs_within_the_distance(values: list[int], random: Any) -> None:
    for value in values[:6]:  # neighbours of some
        values.append(value ^ sum(1 << bit for bit in random.sample(range(63), random.randint(0, 9))))
    values = list(dict.fromkeys(values))
    expected = {(i, j) for j in range(len(values)) for i in range(j) if (values[i] ^ values[j]).bit_count() <= BITS}
    assert set(near_pairs(np.array(values, dtype=np.uint64))) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The cat is on the mat.", "English"),
        ("Die Katze ist auf dem Dach und der Hund nicht.", "German"),
        ("Le chat est dans la maison avec les enfants.", "French"),
        ("请直接回答选项字母。", "Chinese"),
        ("これは猫です。", "Japanese"),
        ("Это кошка.", "Cyrillic"),
        ("Yes", "Latin letters"),
        ("12, 7!", ""),
    ],
)
def test_languages(text: str, name: str) -> None:
    assert language(text) == name


def test_question_keys() -> None:
    same = [
        "<image>\nWhat is it?",
        "what is IT\nAnswer the question using a single word or phrase.",
        "What is it?\n<image>",
    ]
    assert len({question_key(text) for text in same}) == 1
    assert question_key("What is that?") != question_key("What is it?") and question_key("<image>") == ""
    assert all(CODES[code].means for code in CODES)
