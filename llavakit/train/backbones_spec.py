"""How large small backbones are, and how long they are pretrained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from llavakit.base.config import Config
from llavakit.data.mixture import SourceSpec


class Tower(Config):
    """Size of the CLIP. Its image side is a multiple of the patch side."""

    image_size: int = 112
    patch_size: int = 14
    width: int = 192
    layers: int = 4
    heads: int = 8
    batch_size: int = 48
    steps: int = 450
    lr: float = 4e-4


class Language(Config):
    """Size of the language model and of its tokenizer."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 2048
    batch_tokens: int = 4096
    steps: int = 300
    lr: float = 6e-4

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.width // self.heads % 16:
            raise ValueError(
                f"width {self.width} must be {self.heads} heads x 16, 32, ...: smaller heads lack the rotary channels "
                "that the start needs"
            )
        return self


class Backbones(Config):
    """What to pretrain, and on what: captions with images in LLaVA's format, and descriptions of the regions of those
    same images, where there are any; for the language model any number of text files (without conversations, also the
    captions' own text), then conversations, of which only the answers are supervised. A file joins those before it
    when its share of the steps begins. Of a picture in them the language model sees what ``told`` says about its
    regions."""

    captions: SourceSpec
    regions: SourceSpec | None = None
    texts: tuple[str, ...] = ()
    conversations: tuple[SourceSpec, ...] = ()
    told: SourceSpec | None = None
    template: str = "vicuna_v1"
    """Of the conversations."""
    tower: Tower = Tower()
    language: Language = Language()
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
