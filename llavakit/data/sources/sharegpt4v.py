"""ShareGPT4V (arXiv:2311.12793): detailed captions by GPT-4V and by a captioner trained on them, and its own mix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llavakit.data.sources.llava import Published, PublishedOptions

_FILES = {
    "cap100k": "sharegpt4v_instruct_gpt4-vision_cap100k.json",
    "pt1246k": "share-captioner_coco_lcs_sam_1246k_1107.json",
    "mix665k": "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json",
}


class ShareGpt4VOptions(PublishedOptions):
    part: Literal["cap100k", "pt1246k", "mix665k"] = "cap100k"


class ShareGpt4V(Published):
    """One of its three files; their image names begin at the root (coco/, sam/, llava/, wikiart/, ...)."""

    name = "sharegpt4v"
    files = tuple(_FILES.values())
    get = "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V"
    options = ShareGpt4VOptions

    def needs(self, options: PublishedOptions) -> Sequence[str]:
        assert isinstance(options, ShareGpt4VOptions)
        return (_FILES[options.part],)


SOURCE = ShareGpt4V()
