"""ChartQA (arXiv:2203.10244), test: numbers may be 5 % off. The official JSON files or the hub's Parquet."""

from __future__ import annotations

from pathlib import Path

from llavakit.base.files import read_json
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Question, Verdict
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, image_finder, is_parquet, parquet_rows


class ChartQA(Benchmark):
    name = "chartqa"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """``test_human.json`` and ``test_augmented.json``, in this order; an id is the place in them."""
        if is_parquet(data, "test_human.json"):
            rows = [
                (row["type"], row["question"], row["answer"], row["image"])
                for row in parquet_rows(data, "test*.parquet")
            ]
        else:
            rows = []
            for kind in ("human", "augmented"):
                path = find(data, f"test_{kind}.json")
                image = image_finder(path, images, ("png",))
                items = read_json(path)
                rows += [(f"{kind}_test", item["query"], item["label"], image(item["imgname"])) for item in items]
        questions = []
        for number, (kind, text, answer, picture) in enumerate(rows):
            conversation = question(f"{text}\n{SHORT}", picture, id=str(number), source=self.name)
            right = answer[0] if isinstance(answer, list) else answer
            questions.append(Question(str(number), conversation, {"answer": right}, kind))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        return Verdict(float(relaxed_match(answer, question.truth["answer"])), answer)


def relaxed_match(said: str, right: str) -> bool:
    """Two numbers (percent signs are read) that differ by at most 5 % of the right one, else the same text whatever
    the case. A right answer of 0 is compared as text, as in the usual code (``evaluate_vqa.py`` of Qwen-VL)."""
    value, target = _number(said), _number(right)
    if value is not None and target:
        return abs(value - target) / abs(target) <= 0.05
    return said.lower() == right.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


BENCHMARK = ChartQA()
