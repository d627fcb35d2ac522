"""GQA, test-dev balanced (arXiv:1902.09506). Exact match as the official ``eval.py`` on what LLaVA submits."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Found, Judged, Question, Tally, Verdict, every
from llavakit.eval.gqa import about, further
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows

_SPLITS = ("testdev", "val")


class Gqa(Benchmark):
    """``consistency`` asks the unbalanced questions too that follow from a balanced one (``*_all_questions.json``)."""

    name = "gqa"
    unit = "percent"
    protocols = ("official", "strict", "consistency")

    def read(self, data: Path, images: Path | None) -> list[Question]:
        part = "all" if self.protocol == "consistency" else "balanced"
        names = [f"{split}_{part}_questions.json" for split in _SPLITS]
        if is_parquet(data, *names):
            items, pictures = _stored(data, part)
            choices = None
        else:
            path = find(data, *names)
            items = read_json(path)
            image = image_finder(path, images, ("images",))
            pictures = {id: image(f"{id}.jpg") for id in {item["imageId"] for item in items.values()}}
            split = path.name.partition("_")[0]
            chosen = find_optional(data, f"{split}_choices.json")
            choices = read_json(chosen) if chosen else None
        asked = self._asked(items, data)
        return [self._question(id, items[id], choices and choices[id], pictures[items[id]["imageId"]]) for id in asked]

    def _asked(self, items: Mapping[str, Mapping[str, Any]], data: Path) -> list[str]:
        """The official scorer counts balanced questions alone; only the consistency of their answers needs others."""
        asked = dict.fromkeys(id for id, item in items.items() if item.get("isBalanced", True))
        if self.protocol == "consistency":
            asked |= dict.fromkeys(id for balanced in asked.copy() for id in items[balanced].get("entailed") or ())
            missing = next((id for id in asked if id not in items), None)
            if missing is not None:
                raise BadRequest(f"{self.name}: a question in {data} entails {missing!r}, which is not there")
        return list(asked)

    def _question(
        self, id: str, item: Mapping[str, Any], choices: Mapping[str, Any] | None, picture: ImageRef
    ) -> Question:
        structure = (item.get("types") or {}).get("structural", "")
        conversation = question(f"{item['question']}\n{SHORT}", picture, id=id, source=self.name)
        group = structure and ("open" if structure == "query" else "binary")
        truth = {"answer": item["answer"], **about({"id": id, **item}, choices)}
        return Question(id, conversation, truth, group if truth["balanced"] else "")

    def judge(self, question: Question, answer: str) -> Verdict:
        # As LLaVA's convert_gqa_for_eval.py: white space is left as it is.
        parsed = answer.rstrip(".").lower()
        return Verdict(float(parsed == question.truth["answer"]), parsed)

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        score, metrics = super().summarize([(q, v) for q, v in judged if q.truth["balanced"]])
        return score, metrics | further(judged)

    def tally(self, judged: Judged) -> list[Tally]:
        balanced = (q.truth["balanced"] for q, _ in judged)
        return [tally if own else {} for own, tally in zip(balanced, super().tally(judged), strict=True)]

    def official(self, questions: Sequence[Question], found: Found) -> None:
        every(questions, found)


def _stored(data: Path, part: str) -> tuple[dict[str, dict[str, Any]], dict[str, ImageRef]]:
    """Questions and pictures of the hub's copy, which keeps them apart and lists of ids as text."""
    names = [f"{split}_{part}_{{}}/*.parquet" for split in _SPLITS]
    pictures = parquet_rows(data, *(name.format("images") for name in names), "*images*/*.parquet")
    rows = list(parquet_rows(data, *(name.format("instructions") for name in names), "*instructions*/*.parquet"))
    for row in rows:
        if isinstance(row.get("entailed"), str):
            row["entailed"] = ast.literal_eval(row["entailed"])
    return {row["id"]: row for row in rows}, {row["id"]: row["image"] for row in pictures}


BENCHMARK = Gqa()
