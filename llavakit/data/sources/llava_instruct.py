"""LLaVA-Instruct (arXiv:2304.08485): conversations, detailed descriptions, complex reasoning, written by GPT-4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.data.sources.llava import Published, PublishedOptions
from llavakit.eval.source import find_all

WHOLE = "llava_instruct_150k.json"


class InstructOptions(PublishedOptions):
    folder: str = "coco/train2017"
    parts: tuple[str, ...] = ("conversation_58k", "detail_23k", "complex_reasoning_77k")


class LlavaInstruct(Published):
    """The three part files, or the file of all three; ids in them repeat, since one image is in several."""

    name = "llava_instruct"
    files = ("conversation_58k.json", "detail_23k.json", "complex_reasoning_77k.json")
    get = "https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; images: COCO train2017"
    options = InstructOptions
    differs = f"157,712 is the size of {WHOLE}; the three part files need not add up to it"

    def needs(self, options: PublishedOptions) -> Sequence[str]:
        assert isinstance(options, InstructOptions)
        return [f"{part}.json" for part in options.parts]

    def missing(self, data: Path, options: PublishedOptions) -> list[str]:
        return [] if self._whole(data, options) else super().missing(data, options)

    def inputs(self, data: Path, options: PublishedOptions) -> list[Path]:
        return [whole] if (whole := self._whole(data, options)) else super().inputs(data, options)

    def _whole(self, data: Path, options: PublishedOptions) -> Path | None:
        """The file of all three, where all three are wanted and it is there."""
        found = find_all(data, WHOLE) if list(self.needs(options)) == list(self.files) else []
        return found[0] if found else None


SOURCE = LlavaInstruct()
