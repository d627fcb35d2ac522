"""GQA, test-dev balanced (arXiv:1902.09506). Exact match as the official ``eval.py`` on what LLaVA submits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.base.files import read_json
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Found, Question, Verdict, every
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, image_finder


class Gqa(Benchmark):
    name = "gqa"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        path = find(data, "testdev_balanced_questions.json")
        image = image_finder(path, images, ("images",))
        questions = []
        for id, item in read_json(path).items():
            if not item.get("isBalanced", True):
                continue  # the official scorer leaves these out
            structure = item.get("types", {}).get("structural", "")
            questions.append(
                Question(
                    id,
                    question(f"{item['question']}\n{SHORT}", image(f"{item['imageId']}.jpg"), id=id, source=self.name),
                    {"answer": item["answer"]},
                    structure and ("open" if structure == "query" else "binary"),
                )
            )
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        # As LLaVA's convert_gqa_for_eval.py: white space is left as it is.
        parsed = answer.rstrip(".").lower()
        return Verdict(float(parsed == question.truth["answer"]), parsed)

    def official(self, questions: Sequence[Question], found: Found) -> None:
        every(questions, found)


BENCHMARK = Gqa()
