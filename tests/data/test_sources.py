"""Each source from small files of its official form: what it reads, and what its records look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.data.blend import Blend, Ingredient
from llavakit.data.reader import READERS
from llavakit.data.sources._markup import plain_text
from tests.data import raw
from tests.data.samples import records as sample_records


def made(root: Path, kind: str, **options: Any) -> list[dict[str, Any]]:
    """Records of one source."""
    reader, parsed = Blend(name="x", sources={kind: Ingredient(options=options)}).reader(kind)
    talks, _ = reader.talks(root, parsed, seed=0)
    return [talk.record(kind) for talk in talks]


def texts(record: dict[str, Any]) -> list[str]:
    return [turn["value"] for turn in record["conversations"]]


def test_every_source_says_its_name_and_where_to_get_it() -> None:
    for name in READERS.names():
        assert READERS[name].name == name and READERS[name].get


def test_llava_instruct(tmp_path: Path) -> None:
    raw.instruct(tmp_path)
    found = made(tmp_path, "llava_instruct")
    assert [record["image"] for record in found] == ["coco/train2017/000000000033.jpg"] * 3
    assert texts(found[0])[0] == "What?\n<image>", "published marks stay where they are"
    assert len(made(tmp_path, "llava_instruct", parts=["detail_23k"])) == 1
    raw.put(tmp_path / "llava_instruct_150k.json", [raw.llava("1", None, "a", "b")])
    assert [record["id"] for record in made(tmp_path, "llava_instruct")] == ["1"], "the file of all three goes first"


def test_vqav2_and_okvqa(tmp_path: Path) -> None:
    raw.vqa(tmp_path)
    first = made(tmp_path, "vqav2")[0]
    assert first["image"] == "coco/train2017/000000000009.jpg" and first["id"] == "000000000009"
    short = "Answer the question using a single word or phrase."
    assert texts(first) == [f"<image>\nWhat is it?\n{short}", "Cup", "How many?", "2"]
    raw.vqa(tmp_path, prefix="", folder="okvqa")
    path = tmp_path / "okvqa/mscoco_train2014_annotations.json"
    annotations = json.loads(path.read_text())
    annotations["annotations"][1]["answers"] = [{"answer": "race", "raw_answer": "racing"}] * 3 + raw.ten("x", 10, "")
    annotations["annotations"][2]["answers"] = []
    raw.put(path, annotations)
    assert [texts(record)[1::2] for record in made(tmp_path, "okvqa")] == [["Cup"], ["Racing"]]


def test_gqa(tmp_path: Path) -> None:
    raw.gqa(tmp_path)
    found = made(tmp_path, "gqa", prompt_each=True)
    assert [record["image"] for record in found] == ["gqa/images/2354786.jpg", "gqa/images/5.jpg"]
    assert texts(found[0])[1::2] == ["Yes", "Man"]
    assert texts(found[0])[2] == "Who?\nAnswer the question using a single word or phrase."


def test_ocr_vqa(tmp_path: Path) -> None:
    raw.ocr_vqa(tmp_path, covers=30)
    found = made(tmp_path, "ocr_vqa", sample=10)
    assert len(found) == 10 and found[0]["image"] == f"ocr_vqa/images/{found[0]['id']}.jpg"
    assert texts(found[0])[1:] == ["Ann", "Title?", "Sea"]
    assert READERS["ocr_vqa"].missing(tmp_path / "elsewhere", READERS["ocr_vqa"].options())


def test_aokvqa(tmp_path: Path) -> None:
    raw.aokvqa(tmp_path)
    found = made(tmp_path, "aokvqa")
    assert [texts(record)[1::2] for record in found] == [["B", "D"], ["A", "C"], ["D", "B"], ["C", "A"]]
    assert [record["id"] for record in found] == [f"000000299207{part}" for part in ("", "_1", "_2", "_3")]
    letter = "Answer with the option's letter from the given choices directly."
    assert texts(found[0])[0] == f"<image>\nWhich?\nA. cat\nB. dog\nC. cow\nD. hen\n{letter}"


def test_textcaps(tmp_path: Path) -> None:
    raw.textcaps(tmp_path)
    (record,) = made(tmp_path, "textcaps")
    asked = "<image>\nProvide a one-sentence caption for the provided image.\nReference OCR token: STOP, 7,5"
    assert texts(record)[0] == asked and texts(record)[1].startswith("Caption ")
    assert record["image"] == "textvqa/train_images/ab.jpg"
    (bare,) = made(tmp_path, "textcaps", ocr=False)
    assert "OCR" not in texts(bare)[0]


def test_refcoco(tmp_path: Path) -> None:
    raw.refcoco(tmp_path)
    found = made(tmp_path, "refcoco")
    assert [len(record["conversations"]) // 2 for record in found] == [9, 4], "13 phrases in pieces of fewer than ten"
    assert found[0]["image"] == found[1]["image"] == "coco/train2017/000000581857.jpg"
    everything = " ".join(text for record in found for text in texts(record))
    assert "[0.1, 0.3, 0.6, 0.55]" in everything and "refcocog lady" in everything and "secret" not in everything
    assert len(made(tmp_path, "refcoco", sets=["refcoco+"])) == 1
    with pytest.raises(BadRequest, match="no set 'refclef'"):
        made(tmp_path, "refcoco", sets=["refclef"])


def test_visual_genome(tmp_path: Path) -> None:
    raw.visual_genome(tmp_path)
    (record,) = made(tmp_path, "visual_genome")
    assert record["image"] == "vg/VG_100K_2/1.jpg" and len(record["conversations"]) == 20


def test_scienceqa(tmp_path: Path) -> None:
    raw.scienceqa(tmp_path)
    pictured, bare = made(tmp_path, "scienceqa")
    assert texts(pictured)[0] == "Which is it?\nContext: N/A\nOptions: (A) rock (B) tree\n<image>"
    assert texts(pictured)[1] == "LECTURE: Trees live.\nSOLUTION: It lives.\n###\nANSWER: B."
    assert pictured["image"] == "ScienceQA/images/train/1/image.png"
    assert "image" not in bare and texts(bare)[1] == "SOLUTION: It lives.\n###\nANSWER: B."


def test_files_in_llavas_own_format(tmp_path: Path) -> None:
    raw.put(tmp_path / "blip_laion_cc_sbu_558k.json", [raw.llava("004", "00453/004.jpg", "Say.\n<image>", "a car")])
    (record,) = made(tmp_path, "blip_558k")
    assert record["image"] == "LLaVA-Pretrain/images/00453/004.jpg" and texts(record)[0] == "Say.\n<image>"
    raw.put(tmp_path / "LLaVA-CC3M-Pretrain-595K/chat.json", [raw.llava("G", "GCC_1.jpg", "<image>\nSay.", "a car")])
    assert made(tmp_path, "cc3m_595k")[0]["image"] == "LLaVA-CC3M-Pretrain-595K/images/GCC_1.jpg"
    raw.put(
        tmp_path / "sharegpt4v_instruct_gpt4-vision_cap100k.json", [raw.llava("s", "sam/1.jpg", "<image>", "Long.")]
    )
    assert made(tmp_path, "sharegpt4v")[0]["image"] == "sam/1.jpg"
    lines = "".join(json.dumps(record) + "\n" for record in sample_records(5, tmp_path))
    (tmp_path / "own.jsonl").write_text(lines)
    own = made(tmp_path, "llava", file="own.jsonl", folder="pictures")
    assert own[0]["image"] == "pictures/0.png" and "image" not in own[3] and len(own) == 5


def test_sharegpt(tmp_path: Path) -> None:
    raw.sharegpt(tmp_path)
    found = made(tmp_path, "sharegpt")
    assert [(record["id"], texts(record)) for record in found] == [("one", ["Hi", "Hello."]), ("early", ["Hi", "Yes?"])]
    assert [turn["from"] for turn in found[1]["conversations"]] == ["human", "gpt"]


def test_sharegpt_is_cut_not_split(tmp_path: Path, backbones: Path) -> None:
    said = [{"from": "gpt" if n % 2 else "human", "value": f"number {n} " * 10} for n in range(20)]
    raw.put(tmp_path / "ShareGPT_V3_unfiltered_cleaned_split.json", [{"id": "a", "conversations": said}])
    options = {"tokenizer": str(backbones / "language"), "max_tokens": 200}
    (whole,), (cut,) = made(tmp_path, "sharegpt"), made(tmp_path, "sharegpt", **options)
    assert len(texts(whole)) == 20 and 2 <= len(texts(cut)) < 20 and texts(cut) == texts(whole)[: len(texts(cut))]
    assert len(made(tmp_path, "sharegpt", **options | {"max_tokens": 1})[0]["conversations"]) == 2


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Is a < b and <div> a tag?", "Is a < b and <div> a tag?"),
        ('<div class="markdown prose"><p>One &amp; two</p><p>Three</p></div>', "One & two\n\nThree"),
        ("<p>Use <code>x</code> or <strong>y</strong></p>", "Use `x` or **y**"),
        ("<ol><li><p>a</p></li><li>b<ul><li>c</li></ul></li></ol>", "1. a\n\n2. b\n   - c"),
        (
            "<pre><div>pythonCopy code<code>if a:\n    <span>b</span>\n</code></div></pre>",
            "```python\nif a:\n    b\n```",
        ),
    ],
)
def test_markup_to_text(html: str, text: str) -> None:
    assert plain_text(html) == text


def test_a_folder_with_captions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffimage,caption\n1.jpg,"A cat, black"\n2.jpg,\n1.jpg,Again\n')
    found = made(tmp_path, "captions", file="a.csv", folder="pictures")
    assert [(r["id"], r["image"], texts(r)[1]) for r in found] == [
        ("1.jpg#0", "pictures/1.jpg", "A cat, black"),
        ("1.jpg#2", "pictures/1.jpg", "Again"),
    ]
    with pytest.raises(BadRequest, match=r"no column 'text'; its columns are image, caption"):
        made(tmp_path, "captions", file="a.csv", caption="text")
    (tmp_path / "b.csv").write_text("image,caption\n1.jpg\n")
    with pytest.raises(BadRequest, match=r"b\.csv, line 2: no image or caption"):
        made(tmp_path, "captions", file="b.csv")
    folder = tmp_path / "mine/deep"
    folder.mkdir(parents=True)
    (folder / "1.JPG").touch()
    (folder / "1.txt").write_text("A dog.\n")
    (folder / "2.png").touch()
    (only,) = made(tmp_path, "captions", folder="mine", question="What?")
    assert only["image"] == "mine/deep/1.JPG" and texts(only) == ["<image>\nWhat?", "A dog."]


def test_real_captions(shared: Path) -> None:
    found = made(shared / "flickr_1k", "captions", file="captions.csv", folder="images")
    assert len(found) == 4500 and (shared / "flickr_1k" / found[0]["image"]).is_file()


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    picture = Image.new("RGB", (8, 8), "red")
    rows = {"q": ["What?", "Who?"], "a": ["red", ""], "picture": [picture, picture], "key": ["x", "y"]}
    features = datasets.Features(
        {**dict.fromkeys(["q", "a", "key"], datasets.Value("string")), "picture": datasets.Image()}
    )
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(str(tmp_path / "saved"))
    columns = {"image": "picture", "question": "q", "answer": "a", "id": "key"}
    for path in ("a.parquet", "saved"):
        (record,) = made(tmp_path, "hf", path=path, store="stored", **columns)
        assert record["id"] == "x" and texts(record) == ["<image>\nWhat?", "red"]
        assert Image.open(tmp_path / record["image"]).getpixel((0, 0)) == (255, 0, 0)
    assert len(list((tmp_path / "stored").iterdir())) == 1, "the same picture is written once"
    with pytest.raises(BadRequest, match="has its pictures inside"):
        made(tmp_path, "hf", path="a.parquet", **columns)
    with pytest.raises(BadRequest, match="has no column 'b'; it has q, a, "):
        made(tmp_path, "hf", path="a.parquet", **columns | {"answer": "b"})
    with pytest.raises(BadRequest, match="either messages, or answer"):
        made(tmp_path, "hf", path="a.parquet", answer="a")
    with pytest.raises(BadRequest, match="cannot open the data set"):
        made(tmp_path, "hf", path="none/such", answer="a", ask="Describe.")


def test_hugging_face_messages(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hey"},
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"talk": said, "file": "x.png"}) + "\n")
    (record,) = made(tmp_path, "hf", path="a.jsonl", messages="talk", image="file")
    assert [turn["from"] for turn in record["conversations"]] == ["system", "human", "gpt"]
    assert texts(record)[1] == "<image>\nHi" and record["image"] == "x.png"
