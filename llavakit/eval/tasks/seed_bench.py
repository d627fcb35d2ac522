"""SEED-Bench (arXiv:2307.16125): four choices; accuracy over all, over images, over videos (their middle frame) and by
type of question. As in ``convert_seed_for_submission.py`` of haotian-liu/LLaVA the answer is the letter and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Found, Judged, OfficialStops, Question, Verdict, mean
from llavakit.eval.choice import OPTIONS, lettered
from llavakit.eval.prompts import LETTER
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows


class SeedBench(Benchmark):
    name = "seed_bench"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, "SEED-Bench.json"):
            rows = list(parquet_rows(data, "test*.parquet"))
            return [self._question(row, _prompt(row), row["image"], str(row["question_type_id"])) for row in rows]
        path = find(data, "SEED-Bench.json")
        content = read_json(path)
        names = {number: name for name, number in content["question_type"].items()}
        llava = find_optional(data, "llava-seed-bench.jsonl")
        asked = {str(item["question_id"]): item for item in read_jsonl(llava)} if llava else {}
        image = image_finder(path, images)
        questions = []
        for item in content["questions"]:
            own = asked.get(str(item["question_id"]))
            text = own["text"] if own else _prompt(item)
            picture = image(own["image"] if own else _picture(item))
            questions.append(self._question(item, text, picture, names[item["question_type_id"]]))
        return questions

    def _question(self, item: Mapping[str, Any], text: str, picture: ImageRef, kind: str) -> Question:
        id = str(item["question_id"])
        truth = {"answer": item["answer"], "type": kind}
        return Question(id, question(text, picture, id=id, source=self.name), truth, item["data_type"])

    def judge(self, question: Question, answer: str) -> Verdict:
        return Verdict(float(answer == question.truth["answer"]), answer, answer not in OPTIONS[:4])

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        score, metrics = super().summarize(judged)
        for kind in dict.fromkeys(q.truth["type"] for q, _ in judged):
            metrics[kind] = 100.0 * mean(v.score for q, v in judged if q.truth["type"] == kind)
        return score, metrics

    def official(self, questions: Sequence[Question], found: Found) -> None:
        """It stumbles over a type whose questions all have an answer and no right one."""
        texts = {q.id: record["text"] for q, record in found if q is not None}
        kinds: dict[str, bool] = {}
        for q in questions:
            counts = q.id not in texts or texts[q.id] == q.truth["answer"]
            kinds[q.truth["type"]] = kinds.get(q.truth["type"], False) or counts
        if wrong := [kind for kind, counts in kinds.items() if not counts]:
            raise OfficialStops(f"no right answer among the questions of {wrong[0]}")

    def record(self, question: Question) -> dict[str, Any]:
        number = int(question.id) if question.id.isdecimal() else question.id
        return super().record(question) | {"question_id": number}


def _prompt(item: Mapping[str, Any]) -> str:
    choices = lettered([item[f"choice_{letter}"] for letter in "abcd"])
    return f"{item['question']}\n{choices}\n{LETTER}"


def _picture(item: Mapping[str, Any]) -> str:
    if item["data_type"] == "image":
        return f"SEED-Bench-image/{item['data_id']}"
    return f"SEED-Bench-video-image/{item['question_id']}.png"


BENCHMARK = SeedBench()
