"""The 558K image-caption pairs of LAION, CC and SBU with BLIP captions that LLaVA-1.5 aligns on."""

from __future__ import annotations

from llavakit.data.sources.llava import Published, PublishedOptions


class Blip558kOptions(PublishedOptions):
    folder: str = "LLaVA-Pretrain/images"


class Blip558k(Published):
    name = "blip_558k"
    files = ("blip_laion_cc_sbu_558k.json",)
    get = "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain (JSON and images.zip)"
    options = Blip558kOptions


SOURCE = Blip558k()
