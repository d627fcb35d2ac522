"""POPE: is there such an object in the image? (arXiv:2305.10355). Three categories; the headline is their mean F1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_jsonl
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Judged, Question, Verdict, mean
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_optional, image_finder
from llavakit.eval.yesno import yes_no_metrics, yes_or_no

# The official ids begin at 1 in every category; LLaVA's question file keeps them apart so.
_FIRST = {"random": 10_000_000, "popular": 20_000_000, "adversarial": 0}


class Pope(Benchmark):
    name = "pope"
    unit = "fraction"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        llava = find_optional(data, "llava_pope_test.jsonl")
        asked = read_jsonl(llava) if llava else None
        questions = []
        for category, first in _FIRST.items():
            path = find(data, f"coco_pope_{category}.json")
            image = image_finder(path, images, ("val2014", "images"))
            items = read_jsonl(path)
            ids = [first + item["question_id"] for item in items]
            if asked is not None:
                # The official scorer pairs LLaVA's questions with the labels by their order.
                own = [item for item in asked if item["category"] == category]
                if [item["image"] for item in own] != [item["image"] for item in items]:
                    raise BadRequest(f"{llava} and {path} do not hold the same {category} questions; get both anew")
                ids = [item["question_id"] for item in own]
            for id, item in zip(ids, items, strict=True):
                conversation = question(f"{item['text']}\n{SHORT}", image(item["image"]), id=str(id), source=self.name)
                questions.append(Question(str(id), conversation, {"label": item["label"]}, category))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        parsed = yes_or_no(answer)
        return Verdict(float(parsed == question.truth["label"]), parsed)

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        found = {
            category: yes_no_metrics((v.parsed, q.truth["label"]) for q, v in judged if q.group == category)
            for category in _FIRST
        }
        names = next(iter(found.values()))
        metrics = {f"{category}_{name}": found[category][name] for name in names for category in _FIRST}
        return mean(found[category]["f1"] for category in _FIRST), metrics

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": int(question.id)}


BENCHMARK = Pope()
