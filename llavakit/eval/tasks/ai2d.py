"""AI2D (arXiv:1603.07396), test: questions on diagrams, as letters; from the hub's Parquet (``lmms-lab/ai2d``)."""

from __future__ import annotations

import re
import string
from pathlib import Path

from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Question, Verdict
from llavakit.eval.choice import OPTIONS, lettered
from llavakit.eval.prompts import LETTER
from llavakit.eval.source import require_parquet

_DROP = str.maketrans("", "", string.punctuation)


class Ai2d(Benchmark):
    name = "ai2d"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        questions = []
        for number, row in enumerate(require_parquet(data, "test*.parquet")):
            text = f"{row['question']}\n{lettered(row['options'])}\n{LETTER}"
            truth = {"answer": OPTIONS[int(row["answer"])]}
            conversation = question(text, row["image"], id=str(number), source=self.name)
            questions.append(Question(str(number), conversation, truth))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        """As lmms-eval: the letter that begins "X. ...", else the whole answer, without punctuation and case."""
        stated = re.match(r"\s*([A-Z])\.", answer)
        parsed = (stated.group(1) if stated else answer).translate(_DROP).upper()
        return Verdict(float(parsed == question.truth["answer"]), parsed, parsed not in set(OPTIONS))


BENCHMARK = Ai2d()
