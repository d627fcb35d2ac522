"""RefCOCO, RefCOCO+, RefCOCOg (arXiv:1608.00272): the box that a phrase describes, right from an IoU of 0.5 on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_jsonl
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Judged, Question, Verdict, mean
from llavakit.eval.boxes import first_box, squared
from llavakit.eval.metrics import Box, iou
from llavakit.eval.prompts import REGION
from llavakit.eval.source import find_all, image_finder, is_parquet, parquet_rows


class RefCoco(Benchmark):
    """A model of ours speaks of boxes in the padded square; ``in_picture`` is for one that speaks of the picture."""

    name = "refcoco"
    unit = "percent"
    protocols = ("padded_square", "in_picture")

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """JSONL files with ``image``, ``sent``, ``bbox`` (x1 y1 x2 y2 in pixels), ``width``, ``height`` (Qwen-VL's
        ``refcoco_testA.jsonl``; a file is a group), or the hub's Parquet."""
        if is_parquet(data, "refcoco*.jsonl"):
            return self._stored(data)
        questions = []
        for path in find_all(data, "refcoco*.jsonl"):
            image = image_finder(path, images, ("images", "train2014"))
            for number, item in enumerate(read_jsonl(path), 1):
                box, size = tuple(item["bbox"]), (item["width"], item["height"])
                place = image(Path(item["image"]).name)
                questions.append(self._question(f"{path.stem}/{number}", item["sent"], box, size, place, path.stem))
        if not questions:
            raise BadRequest(f"no refcoco*.jsonl and no *.parquet in {data} or up to two folders below; put it there")
        return questions

    def _stored(self, data: Path) -> list[Question]:
        questions = []
        for row in parquet_rows(data, "val*.parquet", "test*.parquet"):
            x, y, width, height = row["bbox"]
            size = _size(row["image"])
            for number, phrase in enumerate(row["answer"]):
                id = f"{row['question_id']}/{number}"
                questions.append(self._question(id, phrase, (x, y, x + width, y + height), size, row["image"], ""))
        return questions

    def _question(
        self, id: str, phrase: str, box: Any, size: tuple[int, int], picture: ImageRef, group: str
    ) -> Question:
        width, height = size
        shares: Box = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        if self.protocol == "padded_square":
            shares = squared(box, width, height)
        conversation = question(f"{REGION} {phrase}", picture, id=id, source=self.name)
        return Question(id, conversation, {"box": shares}, group)

    def shown_truth(self, question: Question) -> str:
        return str([round(share, 2) for share in question.truth["box"]])

    def judge(self, question: Question, answer: str) -> Verdict:
        said = first_box(answer)
        if said is None:
            return Verdict(0.0, "")
        return Verdict(float(iou(said, question.truth["box"]) >= 0.5), str(list(said)))

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        score, metrics = super().summarize(judged)
        boxes = [(first_box(v.parsed), q.truth["box"]) for q, v in judged]
        return score, metrics | {"mean_iou": 100.0 * mean(iou(said, box) if said else 0.0 for said, box in boxes)}


def _size(picture: ImageRef) -> tuple[int, int]:
    from PIL import Image

    stored: Any = picture.source
    with Image.open(io.BytesIO(stored())) as image:
        return image.width, image.height


BENCHMARK = RefCoco()
