"""VQAv2 (arXiv:1612.00837), training split: questions and annotations as visualqa.org publishes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llavakit.base.files import read_json
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import capitalised_answers, coco_name, format_prompt, image_folder, merged_by_image
from llavakit.eval.prompts import SHORT


class VqaOptions(Options):
    prompt_each: bool = False
    """The response-format prompt with every question, not with the first of a conversation."""
    folder: str = "coco/train2017"


class VqaV2(Reader[VqaOptions]):
    """The majority's answer to each question. COCO's 2017 and 2014 images have the same numbers."""

    name = "vqav2"
    files = ("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json")
    get = "https://visualqa.org/download.html (training questions and annotations); images: COCO train2017"
    options = VqaOptions
    differs = "one conversation an image; 82,783 is every image of COCO train2014"

    def read(self, data: Path, options: VqaOptions, dropped: Dropped) -> Talks:
        questions, annotations = (file_of(data, name) for name in self.files)
        answers = {a["question_id"]: a["multiple_choice_answer"].strip() for a in read_json(annotations)["annotations"]}
        return answered(questions, answers, dropped)

    def rules(self, options: VqaOptions) -> Sequence[Rule]:
        return short_answers(options)


def answered(questions: Path, answers: Mapping[int, str], dropped: Dropped) -> list[Talk]:
    """The questions of a file in VQA's form, each with its answer."""
    talks = []
    for asked in read_json(questions)["questions"]:
        answer = answers.get(asked["question_id"], "")
        if not answer:
            dropped("question without an answer")
            continue
        talk = Talk(str(asked["question_id"]), images=(coco_name(asked["image_id"]),))
        talks.append(talk.exchange(asked["question"].strip(), answer))
    return talks


def short_answers(options: VqaOptions) -> list[Rule]:
    """What all sources of short answers have in common."""
    return [
        capitalised_answers(),
        merged_by_image(),
        format_prompt(SHORT, options.prompt_each),
        image_folder(options.folder),
    ]


SOURCE = VqaV2()
