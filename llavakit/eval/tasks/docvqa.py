"""DocVQA (arXiv:2007.00398), validation: average normalised Levenshtein similarity (ANLS)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.base.files import read_json
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Question, Verdict
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, image_finder, is_parquet, parquet_rows


class DocVQA(Benchmark):
    name = "docvqa"
    unit = "fraction"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, "val_v1.0*.json"):
            rows = [
                (row, row["image"]) for row in parquet_rows(data, "DocVQA/validation*.parquet", "validation*.parquet")
            ]
        else:
            path = find(data, "val_v1.0.json", "val_v1.0*.json")
            image = image_finder(path, images, ("val",))
            rows = [(item, image(item["image"])) for item in read_json(path)["data"]]
        questions = []
        for row, picture in rows:
            id = str(row["questionId"])
            conversation = question(f"{row['question']}\n{SHORT}", picture, id=id, source=self.name)
            questions.append(Question(id, conversation, {"answers": row["answers"] or []}))
        return questions

    def has_truth(self, question: Question) -> bool:
        return bool(question.truth["answers"])

    def judge(self, question: Question, answer: str) -> Verdict:
        return Verdict(anls(answer, question.truth["answers"]), answer)


def anls(said: str, answers: Sequence[str]) -> float:
    """The best similarity to an answer, 0 below one half, as the challenge's own evaluator counts: case and runs of
    white space are alike in the distance, but not in the length that it is divided by."""
    best = max((_similarity(said, answer) for answer in answers), default=0.0)
    return best if best >= 0.5 else 0.0


def _similarity(said: str, right: str) -> float:
    length = max(len(right.upper()), len(said.upper()))
    return 1.0 - distance(" ".join(right.lower().split()), " ".join(said.lower().split())) / length if length else 1.0


def distance(a: str, b: str) -> int:
    """Levenshtein's: insertions, deletions and substitutions that make one of the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


BENCHMARK = DocVQA()
