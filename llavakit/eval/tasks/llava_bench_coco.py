"""LLaVA-Bench (COCO): 90 questions on 30 COCO photographs; the judge sees five captions and the objects' boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llavakit.eval.tasks.llava_bench_in_the_wild import LlavaBench


class LlavaBenchCoco(LlavaBench):
    name = "llava_bench_coco"
    question_file = "qa90_questions.jsonl"
    reference_file = "qa90_gpt4_answer.jsonl"
    context_file = "caps_boxes_coco2014_val_80.jsonl"
    prefix = ""
    shown = (
        "five sentences, and lists the objects with their boxes: left, top, right and bottom edge as shares of the "
        "picture"
    )

    def _context(self, item: Mapping[str, Any]) -> str:
        boxes = "\n".join(f"{instance['category']}: {instance['bbox']}" for instance in item["instances"])
        return "\n".join(item["captions"]) + f"\n\n{boxes}"


BENCHMARK = LlavaBenchCoco()
