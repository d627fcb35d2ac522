"""ScienceQA, test split (arXiv:2209.09513): accuracy over all questions and over those with a picture (IMG)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.conversation import IMAGE, question
from llavakit.eval.benchmark import Benchmark, Judged, Question, Verdict, mean, text_of
from llavakit.eval.choice import OPTIONS, letter, lettered
from llavakit.eval.prompts import LETTER
from llavakit.eval.source import find, find_optional, image_finder

_OPTIONS = OPTIONS[:5]


class ScienceQA(Benchmark):
    name = "scienceqa"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        splits = find(data, "pid_splits.json")
        path = find(data, "problems.json", "problems_min.json")
        problems = read_json(path)
        llava = find_optional(data, "llava_test_CQM-A.json")
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
                text, picture = cqm(problem), f"{id}/{problem['image']}" if problem["image"] else None
            else:
                raise BadRequest(
                    f"{path} has no text for problem {id!r}; put problems.json or llava_test_CQM-A.json there"
                )
            text = f"{text.replace(IMAGE, '').strip()}\n{LETTER}"
            pictures = [image(picture)] if picture else []
            truth = {"answer": OPTIONS[problem["answer"]]}
            conversation = question(text, *pictures, id=id, source=self.name)
            questions.append(Question(id, conversation, truth, "img" if picture else "text"))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        parsed = letter(answer, _OPTIONS)
        return Verdict(float(parsed == question.truth["answer"]), parsed)

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        accuracy = 100.0 * mean(v.score for _, v in judged)
        pictured = [v.score for q, v in judged if q.group == "img"]
        return accuracy, {"accuracy": accuracy, "img_accuracy": 100.0 * mean(pictured)}

    def record(self, question: Question) -> dict[str, Any]:
        # The official scorer knows questions with a picture by the mark in their prompt.
        return {"question_id": question.id, "prompt": text_of(question)}


def cqm(problem: Mapping[str, Any]) -> str:
    """A problem in the format of ``llava_test_CQM-A.json``: context where there is one, question, lettered choices."""
    context = f"Context: {problem['hint']}\n" if problem["hint"].strip() else ""
    return f"{context}{problem['question']}\n{lettered(problem['choices'])}".replace("  ", " ").strip()


BENCHMARK = ScienceQA()
