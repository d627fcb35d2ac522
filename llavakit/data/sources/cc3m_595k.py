"""The 595K filtered image-caption pairs of CC3M that LLaVA (v1) aligns on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.data.sources.llava import Published, PublishedOptions


class Cc3mOptions(PublishedOptions):
    folder: str = "LLaVA-CC3M-Pretrain-595K/images"


class Cc3m595k(Published):
    name = "cc3m_595k"
    files = ("LLaVA-CC3M-Pretrain-595K/chat.json",)
    get = "https://huggingface.co/datasets/liuhaotian/LLaVA-CC3M-Pretrain-595K (chat.json and images.zip)"
    options = Cc3mOptions

    def missing(self, data: Path, options: PublishedOptions) -> list[str]:
        return [] if self.inputs(data, options) else list(self.files)

    def inputs(self, data: Path, options: PublishedOptions) -> list[Path]:
        # "chat.json" alone says little: it counts in its own folder, or directly in the source's own path.
        own: Sequence[Path] = [data / "chat.json", *super().inputs(data, options)]
        return [path for path in own if path.is_file()][:1]


SOURCE = Cc3m595k()
