"""VQAv2, open-ended (arXiv:1612.00837). Accuracy as EvalAI computes it on what LLaVA submits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Counted, Found, Latest, Question, Verdict
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_all, find_optional, image_finder, is_parquet, parquet_rows
from llavakit.eval.vqa import normalize_m4c, vqa_accuracy


class VqaV2(Benchmark):
    name = "vqav2"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """Reads the validation split, or the one other split whose questions and annotations are both there; else a
        test split, which has no answers to score against."""
        if is_parquet(data, "v2_*.json", "llava_vqav2_*.jsonl"):
            rows = parquet_rows(data, "validation*.parquet", "testdev*.parquet", shared="image_id")
            return [self._question(row, row, row["image"]) for row in rows]
        splits = _answered(data)
        if not splits and (test := _test(data)):
            return self._unanswered(test, images)
        asked, answered = _one(splits, data)
        truths = {a["question_id"]: a for a in read_json(answered)["annotations"]}
        content = read_json(asked)
        split = content["data_subtype"]
        image = image_finder(asked, images, ("images", split))
        questions = []
        for item in content["questions"]:
            if item["question_id"] not in truths:
                raise BadRequest(f"{answered} has no answers to question {item['question_id']} of {asked.name}")
            picture = image(f"COCO_{split}_{item['image_id']:012d}.jpg")
            questions.append(self._question(item, truths[item["question_id"]], picture))
        return questions

    def _unanswered(self, path: Path, images: Path | None) -> list[Question]:
        image = image_finder(path, images, ("images", "test2015"))
        if path.suffix == ".jsonl":
            return [self._question(item, {}, image(item["image"])) for item in read_jsonl(path)]
        items = read_json(path)["questions"]
        return [self._question(item, {}, image(f"COCO_test2015_{item['image_id']:012d}.jpg")) for item in items]

    def _question(self, item: Mapping[str, Any], truth: Mapping[str, Any], picture: ImageRef) -> Question:
        id = str(item["question_id"])
        text = item["text"] if "text" in item else f"{item['question']}\n{SHORT}"
        answers = truth.get("answers") or ()
        rest = [json.dumps({k: v for k, v in a.items() if k != "answer"}, sort_keys=True) for a in answers]
        known = {"answers": [a["answer"] for a in answers], "records": rest}
        return Question(id, question(text, picture, id=id, source=self.name), known, truth.get("answer_type", ""))

    def judge(self, question: Question, answer: str) -> Verdict:
        # LLaVA submits answers through the M4C processor; EvalAI then applies the official tool's own.
        parsed = normalize_m4c(answer)
        answers = question.truth["answers"]
        return Verdict(vqa_accuracy(parsed, answers) if answers else 0.0, parsed)

    def has_truth(self, question: Question) -> bool:
        return bool(question.truth["answers"])

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """A missing answer is submitted as an empty one; annotators whose records are equal fall together."""
        texts = {q.id: record["text"] for q, record in found if q is not None}
        judged = []
        for q in questions:
            parsed = normalize_m4c(texts.get(q.id, ""))
            judged.append((q, Verdict(vqa_accuracy(parsed, q.truth["answers"], q.truth["records"]), parsed)))
        return Counted(*self.summarize(judged))

    def submission(self, data: Path, latest: Latest) -> bytes:
        """The upload, as ``convert_vqav2_for_submission.py`` writes it: all of test2015, whichever part was asked; a
        missing answer is an empty one."""
        path = find(data, "llava_vqav2_mscoco_test2015.jsonl", "v2_OpenEnded_mscoco_test2015_questions.json")
        items = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)["questions"]
        texts = {item["question_id"]: latest.get(str(item["question_id"]), {"text": ""})["text"] for item in items}
        return json.dumps([{"question_id": id, "answer": normalize_m4c(text)} for id, text in texts.items()]).encode()

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": int(question.id)}


def _answered(data: Path) -> list[tuple[Path, Path]]:
    pairs = []
    for path in find_all(data, "v2_OpenEnded_*_questions.json"):
        name = path.name.replace("OpenEnded_", "").replace("_questions", "_annotations")
        if answered := find_all(data, name):
            pairs.append((path, answered[0]))
    return [pair for pair in pairs if "_val2014_" in pair[0].name] or pairs


def _test(data: Path) -> Path | None:
    names = ("llava_vqav2_mscoco_{}.jsonl", "v2_OpenEnded_mscoco_{}_questions.json")
    return find_optional(data, *(name.format(part) for part in ("test-dev2015", "test2015") for name in names))


def _one(pairs: Sequence[tuple[Path, Path]], data: Path) -> tuple[Path, Path]:
    if len(pairs) > 1:
        names = ", ".join(path.name for path, _ in pairs)
        raise BadRequest(f"{data} holds several splits of VQAv2 ({names}); keep the one to be asked in its own folder")
    if not pairs:
        questions = find(data, "v2_OpenEnded_*_questions.json")
        find(data, questions.name.replace("OpenEnded_", "").replace("_questions", "_annotations"))
    return pairs[0]


BENCHMARK = VqaV2()
