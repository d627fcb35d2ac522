"""ScienceQA answered by two: a model that sees and one that only reads, which looks a second time where they differ
(arXiv:2304.08485, 92.53 %). Answers are read and counted as in ``eval_science_qa_gpt4_requery.py`` of
haotian-liu/LLaVA."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import IMAGE
from llavakit.eval.benchmark import Question, Result, checked, mean, text_of
from llavakit.eval.choice import OPTIONS

_STATED = re.compile("The answer is ([A-Z]).")
_SECOND = (
    "{question}\n\nOne assistant, who sees the picture, answered:\n{seeing}\n\nAnother, who only reads, answered:\n"
    '{reading}\n\nThey differ. Weigh both and give your own answer; end with "The answer is X." where X is the letter.'
)


def read_texts(path: str | Path) -> dict[str, str]:
    """Answers by question id: LLaVA's answers format, or its result JSON (``outputs``)."""
    if Path(path).suffix != ".json":
        records = [checked(record, number) for number, record in enumerate(read_jsonl(path), 1)]
        return {str(record["question_id"]): record["text"] for record in records}
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("outputs"), dict):
        raise BadRequest(f"{path} must be JSONL of answers, or JSON with outputs by question id")
    return {id: str(text) for id, text in content["outputs"].items()}


def differing(questions: Sequence[Question], seeing: Mapping[str, str], reading: Mapping[str, str]) -> list[Question]:
    """The questions on which both state an answer, and not the same."""
    _all_there(questions, seeing, reading)
    pairs = ((q, _stated(q, seeing[q.id]), _stated(q, reading[q.id])) for q in questions)
    return [q for q, ours, theirs in pairs if ours and theirs and ours != theirs]


def second_look(
    questions: Sequence[Question], seeing: Mapping[str, str], reading: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What the reader is asked again, as lines of a ``records`` file."""
    lines = []
    for q in differing(questions, seeing, reading):
        asked = text_of(q).replace(f"{IMAGE}\n", "")
        text = _SECOND.format(question=asked, seeing=seeing[q.id], reading=reading[q.id])
        lines.append({"question_id": q.id, "text": text, "metric": "open", "answers": []})
    return lines


def ensemble(
    questions: Sequence[Question], seeing: Mapping[str, str], reading: Mapping[str, str], second: Mapping[str, str]
) -> Result:
    """The headline is the final answer's accuracy: the second look's, and the seeing model's where that states none.

    ``complement``: the reader's answer, and the seeing model's where the reader states none. An answer that can not be
    read, or is no choice of the question, is wrong; the official code draws lots for it. Raises :class:`BadRequest`
    where an answer is missing.
    """
    _all_there(questions, seeing, reading)
    scores: dict[str, list[float]] = {}
    unread = 0
    for q in questions:
        ours, theirs = _letter(seeing[q.id]), _letter(reading[q.id])
        final = _letter(second.get(q.id, "")) or ours
        unread += not _stated(q, seeing[q.id])
        for name, said in (
            ("accuracy", {final}), ("seeing", {ours}), ("reading", {theirs}), ("complement", {theirs or ours}),
            ("upper_bound", {ours, theirs}),
        ):  # fmt: skip
            scores.setdefault(name, []).append(float(q.truth["answer"] in said))
        scores.setdefault("reader_without_answer", []).append(float(not theirs))
    metrics = {name: 100.0 * mean(values) for name, values in scores.items()}
    metrics["second_looks (count)"] = float(sum(q.id in second for q in questions))
    return Result("scienceqa", "ensemble", metrics["accuracy"], "percent", metrics, len(questions), unparsed=unread)


def _stated(question: Question, text: str) -> str:
    """The letter that an answer states; "" too for one that is no choice of the question."""
    letter = _letter(text)
    return letter if letter in OPTIONS[: question.truth["choices"]] else ""


def _letter(text: str) -> str:
    """The letter that an answer states once, "" where it states none or several."""
    stated: list[str] = _STATED.findall(text)
    return stated[0] if len(stated) == 1 else ""


def _all_there(questions: Sequence[Question], *answers: Mapping[str, str]) -> None:
    missing = next((q.id for q in questions if any(q.id not in texts for texts in answers)), None)
    if missing is not None:
        raise BadRequest(f"scienceqa: question {missing!r} lacks one of the two models' answers; both must have all")
