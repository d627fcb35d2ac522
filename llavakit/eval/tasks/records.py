"""A benchmark of one's own, from a file: questions as JSONL, or conversations in LLaVA's training format (JSON).

JSONL, one question a line::

    {"question_id": 1, "image": "a.jpg", "text": "What is it?", "metric": "exact", "answers": ["a cup"]}

with the metrics of :mod:`llavakit.eval.metrics`; optional ``others`` (what a ``contains`` answer must not say),
``pattern`` (the regular expression of ``phrases``), ``kind`` and ``novel`` (reported apart). The question is asked as
it stands.

LLaVA's format: every human turn with an answer becomes a question of its own, the image first. The response-format
prompt in the turn's own text decides the metric (short: exact, letter: choice, one-sentence caption: words); a turn
without one is asked and recorded but not scored, and the number of such turns stands in the metrics.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import IMAGE, question
from llavakit.eval.benchmark import Benchmark, Judged, Question, Tally, Verdict, mean
from llavakit.eval.metrics import METRICS, read_box
from llavakit.eval.prompts import CAPTION, LETTER, SHORT
from llavakit.eval.source import find, image_finder

_METRIC_OF = {SHORT: "exact", LETTER: "choice", CAPTION: "words"}


class Record(Config):
    """One line of the JSONL."""

    question_id: str | int
    image: str | None = None
    text: str
    metric: Literal["exact", "contains", "phrases", "box", "choice", "words", "open"]
    answers: tuple[str, ...]
    others: tuple[str, ...] = ()
    pattern: str = ""
    kind: str = ""
    novel: bool | None = None

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if not self.answers and self.metric not in ("phrases", "open"):
            raise ValueError(f"answers: metric {self.metric!r} needs at least one")
        if self.metric == "phrases" and not self.pattern:
            raise ValueError("pattern: metric 'phrases' needs a regular expression")
        if self.metric == "box" and read_box(self.answers[0]) is None:
            raise ValueError(f"answers: {self.answers[0]!r} is no box of four numbers")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern: {self.pattern!r} is no regular expression: {error}") from None
        return self


class Records(Benchmark):
    name = "records"
    protocols = ("standard",)
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """``data``: the file itself, or a folder with ``questions.jsonl``."""
        path = data if data.is_file() else find(data, "questions.jsonl")
        image = image_finder(path, images, ("images",))
        if path.suffix != ".jsonl":
            records = [
                r for number, item in enumerate(_list(path), 1) for r in _turns(item, f"{path}, record {number}")
            ]
        else:
            records = [Record.parse(item, f"{path}, record {n}") for n, item in enumerate(read_jsonl(path), 1)]
        questions = []
        for record in records:
            id, pictures = str(record.question_id), [image(record.image)] if record.image else []
            conversation = question(record.text, *pictures, id=id, source=str(path))
            questions.append(Question(id, conversation, record.plain(), record.kind))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        return METRICS[question.truth["metric"]](answer, question.truth)

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        """The headline is the mean over what is right or wrong; captions (``words``) make it only when alone."""
        scored = [(q, v) for q, v in judged if q.truth["metric"] != "open"]
        headline = [(q, v) for q, v in scored if q.truth["metric"] in _counting(judged)]
        score, metrics = super().summarize(headline)
        for name in dict.fromkeys(q.truth["metric"] for q, _ in scored):
            metrics[name] = 100.0 * mean(v.score for q, v in scored if q.truth["metric"] == name)
        for novel, name in ((False, "familiar"), (True, "novel")):
            scores = [v.score for q, v in headline if q.truth["novel"] is novel]
            if scores:
                metrics[name] = 100.0 * mean(scores)
        if len(scored) < len(judged):
            metrics["open-ended, not scored (count)"] = float(len(judged) - len(scored))
        return score, metrics

    def tally(self, judged: Judged) -> list[Tally]:
        counting = _counting(judged)
        return [
            tally if q.truth["metric"] in counting else {}
            for (q, _), tally in zip(judged, super().tally(judged), strict=True)
        ]


def _counting(judged: Judged) -> set[str]:
    """The metrics that make the headline."""
    metrics = {q.truth["metric"] for q, _ in judged} - {"open"}
    return metrics - {"words"} or metrics


def _list(path: Path) -> list[Any]:
    items = read_json(path)
    if not isinstance(items, list):
        raise BadRequest(f"{path} must hold a list of conversations, not {type(items).__name__}")
    return items


def _turns(item: Mapping[str, Any], where: str) -> list[Record]:
    turns = item["conversations"]
    records = []
    for number, (asked, said) in enumerate(itertools.pairwise(turns), 1):
        if asked["from"] != "human" or said["from"] != "gpt":
            continue
        text = asked["value"].replace(IMAGE, "").strip()
        metric = next((metric for prompt, metric in _METRIC_OF.items() if prompt in text), "open")
        record = {"text": text, "metric": metric, "answers": [said["value"]], "image": item.get("image")}
        id = item["id"] if len(turns) == 2 else f"{item['id']}#{number // 2 + 1}"
        records.append(Record.parse(record | {"question_id": id}, where))
    return records


BENCHMARK = Records()
