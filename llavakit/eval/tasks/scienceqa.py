"""ScienceQA, test split (arXiv:2209.09513): accuracy over all questions, over those with a picture (IMG), and by
subject, context and grade as the paper's table; explanation accuracy where the answers explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.conversation import IMAGE, question
from llavakit.eval.benchmark import Benchmark, Counted, Found, Judged, Question, Verdict, mean, text_of
from llavakit.eval.choice import OPTIONS, lettered, stated_letter
from llavakit.eval.explain import explanation
from llavakit.eval.prompts import LETTER
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows

_OPTIONS = OPTIONS[:5]
_EXPLAIN = 'Explain your reasons briefly and end with "The answer is X." where X is the letter of the right option.'
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}


class ScienceQA(Benchmark):
    """``qcm_lea``: asked as LLaVA (2023) was fine-tuned: question, context, options; it explains, then answers.
    ``text_only``: the same of a model that sees no picture and is told how to answer."""

    name = "scienceqa"
    unit = "percent"
    protocols = ("official", "strict", "qcm_lea", "text_only")

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, "pid_splits.json"):
            stored = parquet_rows(data, "ScienceQA-FULL/test*.parquet", "ScienceQA-IMG/test*.parquet", "test*.parquet")
            rows = [(str(number), row, row["image"]) for number, row in enumerate(stored)]
            return [
                self._question(id, row, self._prompt(row), [picture] if picture else []) for id, row, picture in rows
            ]
        splits = find(data, "pid_splits.json")
        path = find(data, "problems.json", "problems_min.json")
        problems = read_json(path)
        llava = find_optional(data, "llava_test_QCM-LEA.json" if self._explains else "llava_test_CQM-A.json")
        asked = {item["id"]: item for item in read_json(llava)} if llava else {}
        image = image_finder(splits, images, ("images/test", "test", "images"))
        questions = []
        for id in read_json(splits)["test"]:
            if id not in problems:
                raise BadRequest(f"{path} has no problem {id!r}, which {splits.name} puts into the test split")
            problem = problems[id]
            if id in asked:
                text, picture = asked[id]["conversations"][0]["value"], asked[id].get("image")
            elif "question" in problem:
                text, picture = self._prompt(problem), f"{id}/{problem['image']}" if problem["image"] else None
            else:
                text, picture = "", None
            text = text.replace(IMAGE, "").strip()
            questions.append(self._question(id, problem, text, [image(picture)] if picture else []))
        return questions

    def askable(self, data: Path, questions: list[Question]) -> list[Question]:
        for q in questions:
            if text_of(q).replace(IMAGE, "").strip() in ("", LETTER, _EXPLAIN):
                raise BadRequest(
                    f"{self.name}: the files in {data} have no text for problem {q.id!r}; put problems.json or "
                    "llava_test_CQM-A.json there"
                )
        return questions

    @property
    def _explains(self) -> bool:
        return self.protocol in ("qcm_lea", "text_only")

    def _prompt(self, problem: Mapping[str, Any]) -> str:
        return qcm(problem) if self._explains else cqm(problem)

    def _question(self, id: str, problem: Mapping[str, Any], text: str, pictures: list[Any]) -> Question:
        if self.protocol == "text_only":
            text, pictures = f"{text}\n{_EXPLAIN}", []
        elif not self._explains:
            text = f"{text}\n{LETTER}"
        truth = {"answer": OPTIONS[problem["answer"]], "choices": len(problem["choices"]), "kinds": _kinds(problem)}
        conversation = question(text, *pictures, id=id, source=self.name)
        return Question(id, conversation, truth, "img" if pictures else "text")

    def judge(self, question: Question, answer: str) -> Verdict:
        parsed = stated_letter(answer, _OPTIONS)
        parsed = parsed if parsed in _OPTIONS[: question.truth["choices"]] else ""
        return Verdict(float(parsed == question.truth["answer"]), parsed)

    def strict(self, questions: Sequence[Question], latest: Mapping[str, Mapping[str, Any]]) -> Counted:
        counted = super().strict(questions, latest)
        texts = {q.id: latest[q.id]["text"] for q in questions if q.id in latest}
        if not any(map(explanation, texts.values())):
            return counted
        led = [
            self.judge(q, texts[q.id]).score if q.id in texts and explanation(texts[q.id]) else 0.0 for q in questions
        ]
        return replace(counted, metrics=counted.metrics | {"explanation_accuracy": 100.0 * mean(led)})

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        accuracy = 100.0 * mean(v.score for _, v in judged)
        pictured = [v.score for q, v in judged if q.group == "img"]
        metrics = {"accuracy": accuracy, "img_accuracy": 100.0 * mean(pictured)}
        for kind in dict.fromkeys(kind for q, _ in judged for kind in q.truth["kinds"]):
            metrics[kind] = 100.0 * mean(v.score for q, v in judged if kind in q.truth["kinds"])
        return accuracy, metrics

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """A question has a picture when the prompt of its answer says so: without an answer it counts for none."""
        latest = {q.id: record for q, record in found if q is not None}
        counted = self.strict(questions, latest)
        pictured = [
            self.judge(q, latest[q.id]["text"]).score
            for q in questions
            if q.id in latest and IMAGE in latest[q.id].get("prompt", text_of(q))
        ]
        return Counted(counted.score, counted.metrics | {"img_accuracy": 100.0 * mean(pictured)}, counted.unparsed)

    def record(self, question: Question) -> dict[str, Any]:
        # The official scorer knows questions with a picture by the mark in their prompt.
        return {"question_id": question.id, "prompt": text_of(question)}


def cqm(problem: Mapping[str, Any]) -> str:
    """A problem in the format of ``llava_test_CQM-A.json``: context where there is one, question, lettered choices."""
    context = f"Context: {problem['hint']}\n" if problem["hint"].strip() else ""
    return f"{context}{problem['question']}\n{lettered(problem['choices'])}".replace("  ", " ").strip()


def qcm(problem: Mapping[str, Any]) -> str:
    """A problem as LLaVA's QCM prompts have it: question, context or N/A, the options on one line."""
    options = " ".join(f"({o}) {choice}" for o, choice in zip(OPTIONS, problem["choices"], strict=False))
    context = problem["hint"].strip() or "N/A"
    return f"{problem['question']}\nContext: {context}\nOptions: {options}".replace("  ", " ").strip()


def _kinds(problem: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of the paper's table that a problem counts for; none where its file lacks the fields."""
    if not {"subject", "hint", "image", "grade"} <= problem.keys():
        return ()
    context = [name for name, there in (("TXT", problem["hint"]), ("IMG", problem["image"])) if there] or ["NO"]
    grade = "G1-6" if int(problem["grade"].removeprefix("grade")) <= 6 else "G7-12"
    return (_SUBJECTS[problem["subject"]], *context, grade)


BENCHMARK = ScienceQA()
