"""VQAv2, open-ended (arXiv:1612.00837). Accuracy as EvalAI computes it on what LLaVA submits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Question, Verdict
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_all, image_finder
from llavakit.eval.vqa import normalize_m4c, vqa_accuracy


class VqaV2(Benchmark):
    name = "vqav2"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """Reads the validation split, or the one other split whose questions and annotations are both there."""
        asked, answered = _split(data)
        truths = {a["question_id"]: a for a in read_json(answered)["annotations"]}
        content = read_json(asked)
        split = content["data_subtype"]
        image = image_finder(asked, images, ("images", split))
        questions = []
        for item in content["questions"]:
            number = item["question_id"]
            if number not in truths:
                raise BadRequest(f"{answered} has no answers to question {number} of {asked.name}")
            truth = truths[number]
            text = f"{item['question']}\n{SHORT}"
            picture = image(f"COCO_{split}_{item['image_id']:012d}.jpg")
            questions.append(
                Question(
                    str(number),
                    question(text, picture, id=str(number), source=self.name),
                    {"answers": [answer["answer"] for answer in truth["answers"]]},
                    truth.get("answer_type", ""),
                )
            )
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        # LLaVA submits answers through the M4C processor; EvalAI then applies the official tool's own.
        parsed = normalize_m4c(answer)
        return Verdict(vqa_accuracy(parsed, question.truth["answers"]), parsed)

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": int(question.id)}


def _split(data: Path) -> tuple[Path, Path]:
    asked = find_all(data, "v2_OpenEnded_*_questions.json")
    pairs = []
    for path in asked:
        name = path.name.replace("OpenEnded_", "").replace("_questions", "_annotations")
        answered = find_all(data, name)
        if answered:
            pairs.append((path, answered[0]))
    pairs = [pair for pair in pairs if "_val2014_" in pair[0].name] or pairs
    if len(pairs) > 1:
        names = ", ".join(path.name for path, _ in pairs)
        raise BadRequest(f"{data} holds several splits of VQAv2 ({names}); keep the one to be asked in its own folder")
    if not pairs:
        questions = find(data, "v2_OpenEnded_*_questions.json")
        find(data, questions.name.replace("OpenEnded_", "").replace("_questions", "_annotations"))
    return pairs[0]


BENCHMARK = VqaV2()
