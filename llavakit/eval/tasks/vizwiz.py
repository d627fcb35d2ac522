"""VizWiz (arXiv:1802.08218): questions of blind people. Scored on ``val.json``; the test split writes a submission."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Found, Latest, Question, Verdict, every
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_all, image_finder, is_parquet, parquet_rows
from llavakit.eval.vqa import normalize_m4c, vizwiz_accuracy

_UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."


class VizWiz(Benchmark):
    name = "vizwiz"
    unit = "percent"
    also = ("VizWiz-VQA",)

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """``val.json`` or ``test.json``, or LLaVA's ``llava_test.jsonl`` alone."""
        names = ("val.json", "test.json", "llava_test.jsonl")
        if not is_parquet(data, *names):
            return self._split(find(data, *names), data, images)
        rows = enumerate(parquet_rows(data, "val*.parquet", "test*.parquet"))
        return [self._question(number, f"{row['question_id']}.jpg", row, row["image"]) for number, row in rows]

    def _split(self, path: Path, data: Path, images: Path | None) -> list[Question]:
        """An id is the place in the file, as LLaVA counts, unless a question file of LLaVA's gives the picture one."""
        image = image_finder(path, images, (path.stem.removeprefix("llava_"), "images"))
        items = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
        llava = find_all(data, "llava_*.jsonl")
        numbers = {item["image"]: item["question_id"] for listed in llava for item in read_jsonl(listed)}
        return [
            self._question(numbers.get(item["image"], number), item["image"], item, image(item["image"]))
            for number, item in enumerate(items)
        ]

    def _question(self, number: int | str, name: str, item: Mapping[str, Any], picture: ImageRef) -> Question:
        text = item["text"] if "text" in item else f"{item['question']}\n{_UNANSWERABLE}\n{SHORT}"
        answers = [a["answer"] if isinstance(a, Mapping) else a for a in item.get("answers") or ()]
        conversation = question(text, picture, id=str(number), source=self.name)
        truth = {"answers": answers, "image": name, "number": number}
        return Question(str(number), conversation, truth, item.get("answer_type") or item.get("category") or "")

    def judge(self, question: Question, answer: str) -> Verdict:
        # LLaVA submits answers through the M4C processor; VizWiz then applies its own.
        parsed = normalize_m4c(answer)
        answers = question.truth["answers"]
        return Verdict(vizwiz_accuracy(parsed, answers) if answers else 0.0, parsed)

    def has_truth(self, question: Question) -> bool:
        return bool(question.truth["answers"])

    def official(self, questions: Sequence[Question], found: Found) -> None:
        every(questions, found)

    def submission(self, data: Path, latest: Latest) -> bytes:
        """The upload, as ``convert_vizwiz_for_submission.py`` writes it. Raises :class:`BadRequest` where an answer is
        missing: the server wants them all."""
        questions = self._split(find(data, "llava_test.jsonl", "test.json"), data, None)
        missing = [q.id for q in questions if q.id not in latest]
        if missing:
            raise BadRequest(f"{self.name}: {len(missing)} questions have no answer, the first is {missing[0]!r}")
        answers = [{"image": q.truth["image"], "answer": normalize_m4c(latest[q.id]["text"])} for q in questions]
        return json.dumps(answers).encode()

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": question.truth["number"]}


BENCHMARK = VizWiz()
