"""TextVQA validation (arXiv:1904.08920), asked with or without the OCR tokens: scores differ by tens of points."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import (
    Benchmark,
    Counted,
    Found,
    OfficialStops,
    Question,
    Verdict,
    mean,
    no_strangers,
)
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows
from llavakit.eval.vqa import m4c_accuracy, normalize_m4c

_ANNOTATIONS = "TextVQA_0.5.1_val.json"
_LLAVA = "llava_textvqa_val_v051_ocr.jsonl"
_ROSETTA = "TextVQA_Rosetta_OCR_v0.2_val.json"
_OCR = "Reference OCR token: "


class TextVQA(Benchmark):
    """Asked with OCR tokens, as LLaVA-1.5 was published (LLaVA's question file where present, else Rosetta's tokens),
    but without them under ``no_ocr``; ``ocr`` is another name of ``official``."""

    name = "textvqa"
    unit = "fraction"
    protocols = ("official", "strict", "ocr", "no_ocr")

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, _ANNOTATIONS):
            rows = list(parquet_rows(data, "validation*.parquet", shared="image_id"))
            prompt = (
                _plain if self.protocol == "no_ocr" else _with_tokens({r["image_id"]: r["ocr_tokens"] for r in rows})
            )
            return [self._question(row, prompt(row), row["image"]) for row in rows]
        path = find(data, _ANNOTATIONS)
        image = image_finder(path, images, ("train_images", "images"))
        prompt = _plain if self.protocol == "no_ocr" or not find_optional(data, _LLAVA, _ROSETTA) else _prompts(data)
        items = read_json(path)["data"]
        return [self._question(item, prompt(item), image(f"{item['image_id']}.jpg")) for item in items]

    def askable(self, data: Path, questions: list[Question]) -> list[Question]:
        if self.protocol != "no_ocr" and not is_parquet(data, _ANNOTATIONS):
            find(data, _LLAVA, _ROSETTA)
        return questions

    def _question(self, item: Mapping[str, Any], prompt: str, picture: ImageRef) -> Question:
        id = str(item["question_id"])
        truth = {"answers": item["answers"], "key": _key(item)}
        return Question(id, question(prompt, picture, id=id, source=self.name), truth)

    def judge(self, question: Question, answer: str) -> Verdict:
        return Verdict(m4c_accuracy(answer, question.truth["answers"]), normalize_m4c(answer))

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """The mean over the answers there are: a missing one shrinks the denominator, a second one counts too."""
        for _, record in found:
            if asked_by(str(record.get("prompt", ""))) is None:
                raise OfficialStops(f"a prompt of unknown form, {str(record.get('prompt'))[:60]!r}")
        no_strangers(found)
        scores = [self.judge(q, record["text"]).score for q, record in found if q is not None]
        return Counted(mean(scores), {})

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": question.truth["key"][0]}

    def finder(self, questions: Sequence[Question]) -> Callable[[Mapping[str, Any]], str | None]:
        """LLaVA's ``question_id`` is the image's: the prompt tells which of its questions was asked."""
        ids = {q.truth["key"]: q.id for q in questions}

        def find(record: Mapping[str, Any]) -> str | None:
            asked = asked_by(str(record.get("prompt", "")))
            return None if asked is None else ids.get((str(record["question_id"]), asked))

        return find


def asked_by(prompt: str) -> str | None:
    """The question within a prompt, lower-cased, by the rules of ``eval_textvqa.py``; None where it knows none."""
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        match = re.search(r"Question: (.*?) Short answer:", prompt, re.DOTALL)
        return match.group(1).lower() if match else None
    if _OCR in prompt and len(lines) == 3:
        return lines[prompt.startswith(_OCR.strip())].lower()
    return lines[0].lower() if len(lines) == 2 else None


def _prompts(data: Path) -> Callable[[Mapping[str, Any]], str]:
    llava = find_optional(data, _LLAVA)
    if llava:
        texts = {(x["question_id"], x["text"].split("\n")[0].lower()): x["text"] for x in read_jsonl(llava)}

        def published(item: Mapping[str, Any]) -> str:
            if _key(item) not in texts:
                raise BadRequest(f"{llava} does not ask {item['question']!r} of image {item['image_id']}")
            return str(texts[_key(item)])

        return published
    return _with_tokens({x["image_id"]: x["ocr_tokens"] for x in read_json(find(data, _LLAVA, _ROSETTA))["data"]})


def _with_tokens(tokens: Mapping[str, Sequence[str]]) -> Callable[[Mapping[str, Any]], str]:
    def built(item: Mapping[str, Any]) -> str:
        return f"{_head(item)}\n{_OCR}{', '.join(tokens.get(item['image_id'], []))}\n{SHORT}"

    return built


def _plain(item: Mapping[str, Any]) -> str:
    return f"{_head(item)}\n{SHORT}"


def _head(item: Mapping[str, Any]) -> str:
    # As LLaVA's file has it; the official questions are mostly in lower case.
    return str(item["question"]).capitalize()


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["image_id"], item["question"].lower()


BENCHMARK = TextVQA()
