"""Small files in the official formats of every source of the mix, as the downloads lay them out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def llava(id: str, image: str | None, *texts: str) -> dict[str, Any]:
    said = [{"from": "gpt" if n % 2 else "human", "value": text} for n, text in enumerate(texts)]
    return {"id": id, **({"image": image} if image else {}), "conversations": said}


def ten(answer: str, others: int = 3, other: str = "other") -> list[dict[str, Any]]:
    return [{"answer": other if n < others else answer, "answer_id": n + 1} for n in range(10)]


def instruct(root: Path) -> None:
    put(
        root / "llava/conversation_58k.json",
        [llava("33", "000000000033.jpg", "What?\n<image>", "A bus.", "Why?", "So.")],
    )
    put(root / "llava/detail_23k.json", [llava("33", "000000000033.jpg", "<image>\nDescribe it.", "A red bus.")])
    broken = llava("34", "000000000034.jpg", "<image>\nWhy?", "")
    put(root / "llava/complex_reasoning_77k.json", [llava("33", "000000000033.jpg", "Why?\n<image>", "Since."), broken])


def sharegpt(root: Path) -> None:
    said = [("human", "Hi"), ("gpt", "Hello."), ("human", "And?")]
    early = [("gpt", "Welcome."), ("human", "Hi"), ("gpt", "Yes?")]
    twice = [("human", "a"), ("human", "b"), ("gpt", "c")]
    conversations = {"one": said, "early": early, "twice": twice, "again": said, "none": [("human", "alone")]}
    put(
        root / "ShareGPT_V3_unfiltered_cleaned_split.json",
        [
            {"id": id, "conversations": [{"from": who, "value": text} for who, text in turns]}
            for id, turns in conversations.items()
        ],
    )


def vqa(root: Path, prefix: str = "v2_", folder: str = "vqav2") -> None:
    asked = [(9001, 9, "What is it?"), (25000, 25, "Where?"), (9002, 9, "How many?")]
    questions = [{"image_id": image, "question": text, "question_id": id} for id, image, text in asked]
    answers = {9001: "cup", 25000: "on table", 9002: "2"}
    annotations = [
        {"question_id": id, "image_id": image, "multiple_choice_answer": answers[id], "answers": ten(answers[id])}
        for id, image, _ in asked
    ]
    put(root / folder / f"{prefix}OpenEnded_mscoco_train2014_questions.json", {"questions": questions})
    put(root / folder / f"{prefix}mscoco_train2014_annotations.json", {"annotations": annotations})


def gqa(root: Path) -> None:
    asked = [
        ("02930152", "2354786", "Is it dark?", "yes"),
        ("1", "5", "What?", "tree"),
        ("2", "2354786", "Who?", "man"),
    ]
    put(
        root / "gqa/train_balanced_questions.json",
        {
            id: {"imageId": image, "question": q, "answer": a, "fullAnswer": "", "types": {}}
            for id, image, q, a in asked
        },
    )


def ocr_vqa(root: Path, covers: int = 5) -> None:
    book = {"imageURL": "http://x/a.gif", "questions": ["Who wrote this?", "Title?"], "answers": ["Ann", "Sea"]}
    books = {f"0{n}": book | {"split": 1, "title": "Sea"} for n in range(covers)}
    put(root / "ocr_vqa/dataset.json", books | {"test": book | {"split": 3}})


def aokvqa(root: Path) -> None:
    asked = {"split": "train", "choices": ["cat", "dog", "cow", "hen"], "correct_choice_idx": 1, "rationales": []}
    same = {"image_id": 299207, "question_id": "22Mex"}
    put(
        root / "aokvqa/aokvqa_v1p0_train.json",
        [
            asked | same | {"question": "Which?"},
            asked | same | {"question": "What?", "question_id": "x", "correct_choice_idx": 3},
        ],
    )


def textcaps(root: Path) -> None:
    captions = [
        {"image_id": "ab", "caption_str": f"Caption {n}.", "caption_id": n, "set_name": "train"} for n in range(5)
    ]
    put(root / "textcaps/TextCaps_0.1_train.json", {"dataset_name": "textcaps", "data": captions})
    words = {"image_id": "ab", "ocr_tokens": ["STOP", "7,5"], "ocr_info": []}
    put(root / "textvqa/TextVQA_Rosetta_OCR_v0.2_train.json", {"dataset_type": "train", "data": [words]})


def refcoco(root: Path, phrases: int = 11) -> None:
    """RefCOCO as a protocol-2 pickle, as Python 2 wrote it; the other two as JSON."""
    name = "COCO_train2014_000000581857.jpg"
    instances = {
        "images": [{"id": 581857, "width": 200, "height": 100, "file_name": name}],
        "annotations": [{"id": 7, "image_id": 581857, "bbox": [20.0, 10.0, 100.0, 50.0]}],
    }
    sentences = [{"raw": f"the lady {n}", "sent": f"lady {n}", "sent_id": n} for n in range(phrases)]
    ref = {"ref_id": 1, "ann_id": 7, "image_id": 581857, "file_name": name, "split": "train", "sentences": sentences}
    test = ref | {"split": "testA", "sentences": [{"raw": "secret", "sent": "secret", "sent_id": 99}]}
    for folder, by in {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}.items():
        put(root / "refcoco_all" / folder / "instances.json", instances)
        path = root / "refcoco_all" / folder / f"refs({by}).p"
        if folder == "refcoco":
            path.write_bytes(pickle.dumps([ref, test], protocol=2))
        else:
            put(
                path.with_suffix(".json"),
                [ref | {"sentences": [{"raw": f"{folder} lady", "sent": "lady", "sent_id": 50}]}],
            )


def visual_genome(root: Path) -> None:
    def region(n: int) -> dict[str, Any]:
        return {"region_id": n, "x": 10 * n, "y": 0, "width": 10, "height": 20, "phrase": f"thing {n}", "image_id": 1}

    put(
        root / "vg/region_descriptions.json",
        [{"id": 1, "regions": [region(n) for n in range(14)]}, {"id": 2, "regions": []}],
    )
    pictures = [
        {"image_id": n, "width": 200, "height": 400, "url": f"https://cs.stanford.edu/people/rak248/VG_100K_2/{n}.jpg"}
        for n in (1, 2)
    ]
    put(root / "vg/image_data.json", pictures)


def scienceqa(root: Path) -> None:
    problem = {"question": "Which is  it?", "choices": ["rock", "tree"], "answer": 1, "hint": "", "image": "image.png"}
    problem |= {"lecture": "Trees live.", "solution": "It lives.", "split": "train"}
    put(
        root / "ScienceQA/problems.json", {"1": problem, "2": problem | {"image": None, "lecture": "", "hint": "Look."}}
    )
    put(root / "ScienceQA/pid_splits.json", {"train": ["1", "2"], "test": []})


def whole_mix(root: Path) -> Path:
    """Raw files for every source of llava15-mix."""
    for source in (instruct, sharegpt, vqa, gqa, ocr_vqa, aokvqa, textcaps, refcoco, visual_genome):
        source(root)
    vqa(root, prefix="", folder="okvqa")
    return root
