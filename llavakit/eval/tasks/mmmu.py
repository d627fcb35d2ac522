"""MMMU validation (arXiv:2311.16502): 900 college questions, by subject; from the hub's Parquet (``lmms-lab/MMMU``)."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Question, Verdict
from llavakit.eval.choice import OPTIONS, lettered
from llavakit.eval.mmmu import chosen_letter, open_answer_right
from llavakit.eval.prompts import LETTER, SHORT
from llavakit.eval.source import find, parquet_rows

_IMAGES = tuple(f"image_{number}" for number in range(1, 8))


class Mmmu(Benchmark):
    name = "mmmu"
    unit = "fraction"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        pattern = "validation*.parquet"
        find(data, pattern)
        return [self._question(row) for row in parquet_rows(data, pattern, pictures=_IMAGES)]

    def _question(self, row: Mapping[str, Any]) -> Question:
        subject = re.fullmatch(r"[^_]+_(.+)_\d+", row["id"])
        if subject is None:
            raise BadRequest(f"{self.name}: {row['id']!r} is no id of the form validation_Subject_1")
        options = row["options"]
        options = ast.literal_eval(options) if isinstance(options, str) else options
        choices = dict(zip(OPTIONS, options, strict=False)) if row["question_type"] == "multiple-choice" else {}
        asked = f"{row['question']}\n{lettered(options)}" if choices else row["question"]
        named = dict.fromkeys(re.findall(r"<image (\d)>", asked))
        pictures = [row[f"image_{n}"] for n in sorted(named) if row.get(f"image_{n}")]
        text = f"{asked}\n\n{LETTER if choices else SHORT}"
        truth = {"answer": _answers(row["answer"]) if not choices else row["answer"], "choices": choices}
        return Question(row["id"], question(text, *pictures, id=row["id"], source=self.name), truth, subject.group(1))

    def judge(self, question: Question, answer: str) -> Verdict:
        truth = question.truth
        if not truth["choices"]:
            return Verdict(float(open_answer_right(answer, truth["answer"])), answer.strip())
        parsed = chosen_letter(answer, truth["choices"])
        return Verdict(float(parsed == truth["answer"]), parsed)


def _answers(text: str) -> list[str]:
    """Several right answers stand as a Python list."""
    return [str(answer) for answer in ast.literal_eval(text)] if text.startswith("[") else [text]


BENCHMARK = Mmmu()
