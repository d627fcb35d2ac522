"""TextCaps (arXiv:2003.12462), training split: captions that read, with the words an OCR system found as reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.base.files import read_json
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import image_folder, one_caption
from llavakit.data.stream import items
from llavakit.eval.prompts import CAPTION

_OCR = "TextVQA_Rosetta_OCR_v0.2_train.json"


class TextCapsOptions(Options):
    folder: str = "textvqa/train_images"
    ocr: bool = True
    """Put "Reference OCR token: ..." below the question."""


class TextCaps(Reader[TextCapsOptions]):
    """One conversation an image, of its five captions one."""

    name = "textcaps"
    files = ("TextCaps_0.1_train.json", _OCR)
    get = "https://textvqa.org/textcaps/dataset/ (captions), https://textvqa.org/dataset/ (Rosetta OCR tokens, images)"
    options = TextCapsOptions
    differs = "one caption an image; 21,953 is every training image"

    def needs(self, options: TextCapsOptions) -> Sequence[str]:
        return self.files if options.ocr else self.files[:1]

    def read(self, data: Path, options: TextCapsOptions, dropped: Dropped) -> Talks:
        captions: dict[str, list[str]] = {}
        for item in read_json(file_of(data, self.files[0]))["data"]:
            if item["caption_str"].strip():
                captions.setdefault(item["image_id"], []).append(item["caption_str"].strip())
            else:
                dropped("empty caption")
        words = _words(file_of(data, _OCR)) if options.ocr else {}
        talks = []
        for image, said in captions.items():
            extra = {"captions": said} | ({"ocr": words.get(image, [])} if options.ocr else {})
            talks.append(Talk(image, images=(f"{image}.jpg",), extra=extra))
        return talks

    def rules(self, options: TextCapsOptions) -> Sequence[Rule]:
        return [one_caption(CAPTION), image_folder(options.folder)]


def _words(path: Path) -> dict[str, list[str]]:
    for item in items(path):
        if item.key == "data":
            return {found["image_id"]: found["ocr_tokens"] for found in item.value}
    return {}


SOURCE = TextCaps()
