"""Image captions against several human ones: CIDEr through pycocoevalcap, whose tokenizer needs Java."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import read_json
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Counted, Judged, Latest, Question, Verdict
from llavakit.eval.prompts import CAPTION
from llavakit.eval.source import find, image_finder


class Captions(Benchmark):
    name = "captions"
    unit = "percent"
    protocols = ("standard",)

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """COCO's format: ``captions_val*.json`` or any other ``captions_*.json``; an id is the picture's."""
        path = find(data, "captions_val*.json", "captions_*.json")
        content = read_json(path)
        split = path.stem.removeprefix("captions_")
        image = image_finder(path, images, (split, "images"))
        said: dict[int, list[str]] = {}
        for item in content["annotations"]:
            said.setdefault(item["image_id"], []).append(item["caption"])
        questions = []
        for item in content["images"]:
            if item["id"] in said:
                id = str(item["id"])
                conversation = question(CAPTION, image(item["file_name"]), id=id, source=self.name)
                questions.append(Question(id, conversation, {"captions": said[item["id"]]}))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        """CIDEr is a property of all the captions together: none is right or wrong alone."""
        return Verdict(0.0, answer)

    def shown_truth(self, question: Question) -> str:
        return str(question.truth["captions"][0])

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        return self._cider([q for q, _ in judged], {q.id: v.parsed for q, v in judged}), {}

    def strict(self, questions: Sequence[Question], latest: Latest) -> Counted:
        texts = {q.id: latest[q.id]["text"] if q.id in latest else "" for q in questions}
        unparsed = sum(not record["text"].strip() for record in latest.values())
        return Counted(self._cider(questions, texts), {}, unparsed)

    def _cider(self, questions: Sequence[Question], texts: dict[str, str]) -> float:
        try:
            from pycocoevalcap.cider.cider import Cider
            from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
        except ImportError:
            raise BadRequest("CIDEr needs pycocoevalcap: pip install 'llavakit[captions]'") from None
        if shutil.which("java") is None:
            raise BadRequest("CIDEr's tokenizer needs Java: install a Java runtime")
        truths = {q.id: [{"caption": text} for text in q.truth["captions"]] for q in questions}
        said = {q.id: [{"caption": " ".join(texts[q.id].split())}] for q in questions}
        with contextlib.redirect_stdout(io.StringIO()):
            tokenizer = PTBTokenizer()
            tokens = tokenizer.tokenize(truths), tokenizer.tokenize(said)
            if any(len(found) != len(questions) for found in tokens):
                raise WorkFailed("the tokenizer of pycocoevalcap failed; does java run?")
            score, _ = Cider().compute_score(*tokens)
        return 100.0 * float(score)


BENCHMARK = Captions()
