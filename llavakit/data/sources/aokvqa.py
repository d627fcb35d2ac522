"""A-OKVQA (arXiv:2206.01718), training split, multiple choice; every question once per choice, rotated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.base.files import read_json
from llavakit.data.reader import Dropped, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import coco_name, format_prompt, image_folder, merged_by_image, rotated_choices
from llavakit.data.sources.vqav2 import VqaOptions
from llavakit.eval.prompts import LETTER


class AOkVqa(Reader[VqaOptions]):
    name = "aokvqa"
    files = ("aokvqa_v1p0_train.json",)
    get = "https://allenai.org/project/a-okvqa (aokvqa_v1p0.tar.gz); images: COCO train2017"
    options = VqaOptions
    differs = "four rotations of the questions about each of 16,540 images"

    def read(self, data: Path, options: VqaOptions, dropped: Dropped) -> Talks:
        talks = []
        for asked in read_json(file_of(data, *self.files)):
            choices, correct = asked["choices"], asked["correct_choice_idx"]
            if not 0 <= correct < len(choices):
                dropped("no right choice")
                continue
            extra = {"question": asked["question"].strip(), "choices": choices, "correct": correct}
            talks.append(Talk(asked["question_id"], images=(coco_name(asked["image_id"]),), extra=extra))
        return talks

    def rules(self, options: VqaOptions) -> Sequence[Rule]:
        return [
            rotated_choices(),
            merged_by_image(),
            format_prompt(LETTER, options.prompt_each),
            image_folder(options.folder),
        ]


SOURCE = AOkVqa()
