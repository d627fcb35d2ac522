"""GQA, test-dev balanced (arXiv:1902.09506). Exact match as the official ``eval.py`` on what LLaVA submits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.files import read_json
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Found, Question, Verdict, every
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, image_finder, is_parquet, parquet_rows

_FILE = "testdev_balanced_questions.json"


class Gqa(Benchmark):
    name = "gqa"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, _FILE):
            pictures = {row["id"]: row["image"] for row in parquet_rows(data, "*images*/*.parquet")}
            rows = {row["id"]: row for row in parquet_rows(data, "*instructions*/*.parquet")}
            return [self._question(id, row, pictures[row["imageId"]]) for id, row in rows.items()]
        path = find(data, _FILE)
        image = image_finder(path, images, ("images",))
        # The official scorer leaves questions out that are not balanced.
        items = {id: item for id, item in read_json(path).items() if item.get("isBalanced", True)}
        return [self._question(id, item, image(f"{item['imageId']}.jpg")) for id, item in items.items()]

    def _question(self, id: str, item: Mapping[str, Any], picture: ImageRef) -> Question:
        structure = (item.get("types") or {}).get("structural", "")
        conversation = question(f"{item['question']}\n{SHORT}", picture, id=id, source=self.name)
        group = structure and ("open" if structure == "query" else "binary")
        return Question(id, conversation, {"answer": item["answer"]}, group)

    def judge(self, question: Question, answer: str) -> Verdict:
        # As LLaVA's convert_gqa_for_eval.py: white space is left as it is.
        parsed = answer.rstrip(".").lower()
        return Verdict(float(parsed == question.truth["answer"]), parsed)

    def official(self, questions: Sequence[Question], found: Found) -> None:
        every(questions, found)


BENCHMARK = Gqa()
