"""GQA (arXiv:1902.09506), balanced training questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.data.reader import Dropped, Reader, Rule, Talk, Talks, file_of
from llavakit.data.sources.vqav2 import VqaOptions, short_answers
from llavakit.data.stream import items


class GqaOptions(VqaOptions):
    folder: str = "gqa/images"


class Gqa(Reader[GqaOptions]):
    """The short answer to each question; the questions about one image lie far apart in the file."""

    name = "gqa"
    files = ("train_balanced_questions.json",)
    get = "https://cs.stanford.edu/people/dorarad/gqa/download.html (questions 1.2, images)"
    options = GqaOptions
    differs = "one conversation an image; the balanced training questions are about 72,140 images"

    def read(self, data: Path, options: GqaOptions, dropped: Dropped) -> Talks:
        talks = []
        for item in items(file_of(data, *self.files)):
            asked = item.value
            talk = Talk(item.key, images=(f"{asked['imageId']}.jpg",))
            talks.append(talk.exchange(asked["question"].strip(), asked["answer"].strip()))
        return talks

    def rules(self, options: GqaOptions) -> Sequence[Rule]:
        return short_answers(options)


SOURCE = Gqa()
