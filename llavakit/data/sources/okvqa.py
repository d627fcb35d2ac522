"""OK-VQA (arXiv:1906.00067), training split: the answer that most of the ten people gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llavakit.base.files import read_json
from llavakit.data.reader import Dropped, Reader, Rule, Talks, file_of
from llavakit.data.sources.vqav2 import VqaOptions, answered, short_answers


class OkVqa(Reader[VqaOptions]):
    """Of answers that equally many gave, the first in the file counts. "answer" is the text as written; "raw_answer",
    where it is there, is the same before stemming and goes before it."""

    name = "okvqa"
    files = ("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json")
    get = "https://okvqa.allenai.org/download.html (training questions and annotations); images: COCO train2017"
    options = VqaOptions
    differs = "one conversation an image: 9,009 questions on 8,998 images"

    def read(self, data: Path, options: VqaOptions, dropped: Dropped) -> Talks:
        questions, annotations = (file_of(data, name) for name in self.files)
        answers = {a["question_id"]: _majority(a["answers"]) for a in read_json(annotations)["annotations"]}
        return answered(questions, answers, dropped)

    def rules(self, options: VqaOptions) -> Sequence[Rule]:
        return short_answers(options)


def _majority(answers: Sequence[dict[str, str]]) -> str:
    said = [(a.get("raw_answer") or a["answer"]).strip() for a in answers]
    counts = Counter(text for text in said if text)
    return counts.most_common(1)[0][0] if counts else ""


SOURCE = OkVqa()
