"""OCR-VQA (ICDAR 2019): book covers and questions about their title, author and genre; 80K covers are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from llavakit.data.reader import Dropped, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import format_prompt, image_folder, sampled
from llavakit.data.sources.vqav2 import VqaOptions
from llavakit.data.stream import items
from llavakit.eval.prompts import SHORT

TRAIN = 1


class OcrVqaOptions(VqaOptions):
    folder: str = "ocr_vqa/images"
    sample: int = Field(80_000, gt=0)


class OcrVqa(Reader[OcrVqaOptions]):
    """One conversation a cover. Images are named KEY.jpg whatever they are: some of the downloads are GIFs, and the
    original's readers go by the name (``llavakit data doctor`` finds them; our reader goes by the content)."""

    name = "ocr_vqa"
    files = ("dataset.json",)
    get = "https://ocr-vqa.github.io/ (dataset.json; loadDataset.py downloads the images), saved as KEY.jpg"
    options = OcrVqaOptions
    differs = "80,000 of the training covers are sampled; covers without a question cannot be"

    def needs(self, options: OcrVqaOptions) -> Sequence[str]:
        return ("ocr_vqa/dataset.json",)

    def missing(self, data: Path, options: OcrVqaOptions) -> list[str]:
        missing = super().missing(data, options)
        # "dataset.json" alone says little: outside a folder ocr_vqa it counts only directly in the source's own path.
        return [] if (data / "dataset.json").is_file() else missing

    def inputs(self, data: Path, options: OcrVqaOptions) -> list[Path]:
        return [_file(data)]

    def read(self, data: Path, options: OcrVqaOptions, dropped: Dropped) -> Talks:
        talks = []
        for item in items(_file(data)):
            book = item.value
            if book["split"] != TRAIN:
                dropped("not of the training split")
                continue
            pairs = zip(book["questions"], book["answers"], strict=True)
            turns = tuple(t for q, a in pairs if a.strip() for t in (("human", q.strip()), ("gpt", a.strip())))
            if not turns:
                dropped("cover without a question")
                continue
            talks.append(Talk(item.key, turns, (f"{item.key}.jpg",)))
        return talks

    def rules(self, options: OcrVqaOptions) -> Sequence[Rule]:
        return [
            sampled(options.sample),
            format_prompt(SHORT, options.prompt_each),
            image_folder(options.folder),
        ]


def _file(data: Path) -> Path:
    own = data / "dataset.json"
    return own if own.is_file() else file_of(data, "ocr_vqa/dataset.json")


SOURCE = OcrVqa()
