"""TextVQA validation (arXiv:1904.08920), asked with or without the OCR tokens: scores differ by tens of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Question, Verdict
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_optional, image_finder
from llavakit.eval.vqa import m4c_accuracy, normalize_m4c

_LLAVA = "llava_textvqa_val_v051_ocr.jsonl"
_ROSETTA = "TextVQA_Rosetta_OCR_v0.2_val.json"
_OCR = "Reference OCR token: "


class TextVQA(Benchmark):
    """``ocr`` is how LLaVA-1.5 was published: LLaVA's question file where present, else Rosetta's tokens."""

    name = "textvqa"
    unit = "fraction"
    protocols = ("ocr", "no_ocr")

    def read(self, data: Path, images: Path | None) -> list[Question]:
        path = find(data, "TextVQA_0.5.1_val.json")
        image = image_finder(path, images, ("train_images", "images"))
        prompt = _prompts(data) if self.protocol == "ocr" else lambda item: f"{_head(item)}\n{SHORT}"
        questions = []
        for item in read_json(path)["data"]:
            id, picture = str(item["question_id"]), image(f"{item['image_id']}.jpg")
            truth = {"answers": item["answers"], "key": _key(item)}
            questions.append(Question(id, question(prompt(item), picture, id=id, source=self.name), truth))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        return Verdict(m4c_accuracy(answer, question.truth["answers"]), normalize_m4c(answer))

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": question.truth["key"][0]}

    def finder(self, questions: Sequence[Question]) -> Callable[[Mapping[str, Any]], str | None]:
        """LLaVA's ``question_id`` is the image's: the prompt tells which of its questions was asked."""
        ids = {q.truth["key"]: q.id for q in questions}

        def find(record: Mapping[str, Any]) -> str | None:
            lines = str(record.get("prompt", "")).split("\n")
            asked = next((line for line in lines if not line.startswith(_OCR)), "")
            return ids.get((str(record["question_id"]), asked.lower()))

        return find


def _prompts(data: Path) -> Callable[[Mapping[str, Any]], str]:
    llava = find_optional(data, _LLAVA)
    if llava:
        texts = {(x["question_id"], x["text"].split("\n")[0].lower()): x["text"] for x in read_jsonl(llava)}

        def published(item: Mapping[str, Any]) -> str:
            if _key(item) not in texts:
                raise BadRequest(f"{llava} does not ask {item['question']!r} of image {item['image_id']}")
            return str(texts[_key(item)])

        return published
    tokens = {x["image_id"]: x["ocr_tokens"] for x in read_json(find(data, _LLAVA, _ROSETTA))["data"]}

    def built(item: Mapping[str, Any]) -> str:
        return f"{_head(item)}\n{_OCR}{', '.join(tokens.get(item['image_id'], []))}\n{SHORT}"

    return built


def _head(item: Mapping[str, Any]) -> str:
    # As LLaVA's file has it; the official questions are mostly in lower case.
    return str(item["question"]).capitalize()


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["image_id"], item["question"].lower()


BENCHMARK = TextVQA()
