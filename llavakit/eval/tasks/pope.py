"""POPE: is there such an object in the image? (arXiv:2305.10355). Three categories; the headline is their mean F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_jsonl
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import (
    Benchmark,
    Counted,
    Found,
    Judged,
    OfficialStops,
    Question,
    Tally,
    Verdict,
    mean,
    no_strangers,
    ratio,
)
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows
from llavakit.eval.yesno import says_neither, yes_no_metrics, yes_or_no

if TYPE_CHECKING:
    import numpy as np

# The official ids begin at 1 in every category; LLaVA's question file keeps them apart so.
_FIRST = {"random": 10_000_000, "popular": 20_000_000, "adversarial": 0}


class Pope(Benchmark):
    name = "pope"
    unit = "fraction"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, "coco_pope_*.json"):
            rows = list(parquet_rows(data, "test*.parquet", shared="image_source"))
            return [
                self._question(first + int(r["question_id"]), r["question"], r["answer"], r["image"], category)
                for category, first in _FIRST.items()
                for r in rows
                if r["category"] == category
            ]
        llava = find_optional(data, "llava_pope_test.jsonl")
        asked = read_jsonl(llava) if llava else None
        questions = []
        for category, first in _FIRST.items():
            path = find(data, f"coco_pope_{category}.json")
            image = image_finder(path, images, ("val2014", "images"))
            items = read_jsonl(path)
            ids = [first + item["question_id"] for item in items]
            if asked is not None:
                own = [item for item in asked if item["category"] == category]
                if [item["image"] for item in own] != [item["image"] for item in items]:
                    raise BadRequest(f"{llava} and {path} do not hold the same {category} questions; get both anew")
                ids = [item["question_id"] for item in own]
            for id, item in zip(ids, items, strict=True):
                questions.append(self._question(id, item["text"], item["label"], image(item["image"]), category))
        return questions

    def _question(self, id: int | str, text: str, label: str, picture: ImageRef, category: str) -> Question:
        conversation = question(f"{text}\n{SHORT}", picture, id=str(id), source=self.name)
        return Question(str(id), conversation, {"label": label}, category)

    def judge(self, question: Question, answer: str) -> Verdict:
        parsed = yes_or_no(answer)
        return Verdict(float(parsed == question.truth["label"]), parsed, says_neither(answer))

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        pairs = {
            category: [(v.parsed, q.truth["label"]) for q, v in judged if q.group == category] for category in _FIRST
        }
        return _summary({category: yes_no_metrics(own) for category, own in pairs.items()})

    def tally(self, judged: Judged) -> list[Tally]:
        return [_tally(q.group, v.parsed == "yes", q.truth["label"] == "yes") for q, v in judged]

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """F1 of a category: the hits twice, over themselves and what was said or left out wrongly."""
        f1 = [ratio(2 * sums[f"{c} hits"], 2 * sums[f"{c} hits"] + sums[f"{c} misses"]) for c in _FIRST]
        return sum(f1[1:], f1[0]) / len(f1)

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """Answers are paired with the labels of their category by position; what has no partner is left out."""
        no_strangers(found)
        metrics = {}
        for category in _FIRST:
            said = [yes_or_no(record["text"]) for q, record in found if q is not None and q.group == category]
            labels = [q.truth["label"] for q in questions if q.group == category]
            pairs = list(zip(said, labels, strict=False))
            if ("yes", "yes") not in pairs:
                raise OfficialStops(f"no hit among the {category} questions, where it divides by zero")
            metrics[category] = yes_no_metrics(pairs) | {"yes_ratio": mean(s == "yes" for s in said)}
        return Counted(*_summary(metrics))

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": int(question.id)}


def _tally(category: str, said: bool, there: bool) -> Tally:
    return {f"{category} hits": float(said and there), f"{category} misses": float(said != there)}


def _summary(found: dict[str, dict[str, float]]) -> tuple[float, dict[str, float]]:
    names = next(iter(found.values()))
    metrics = {f"{category}_{name}": found[category][name] for name in names for category in _FIRST}
    return mean(found[category]["f1"] for category in _FIRST), metrics


BENCHMARK = Pope()
