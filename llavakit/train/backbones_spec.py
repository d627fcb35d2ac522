"""How large small backbones are, and how long they are pretrained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

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
        if self.heads % 2 or self.width % self.heads or self.width // self.heads % 16:
            raise ValueError(
                f"width {self.width} must be {self.heads} heads x 16, 32, ..., and heads be even: half of them begin "
                "by looking up, half by copying, and smaller ones lack the rotary channels for it"
            )
        return self


class Lesson(Config):
    """Conversations that the language model learns from once the part ``begins`` of its steps is done. ``share``: how
    often it is chosen, to the others that have begun."""

    data: SourceSpec
    begins: float = Field(0.0, ge=0, lt=1)
    share: float = Field(1.0, gt=0)


class Backbones(Config):
    """What to pretrain, and on what: captions with images in LLaVA's format, and descriptions of the regions of those
    same images, where there are any; for the language model any number of text files (without conversations, also the
    captions' own text), then conversations, of which only the answers are supervised. Of a picture in them the language
    model sees what ``told`` says about its regions."""

    captions: SourceSpec
    regions: SourceSpec | None = None
    texts: tuple[str, ...] = ()
    conversations: tuple[Lesson, ...] = ()
    told: SourceSpec | None = None
    template: str = "vicuna_v1"
    """Of the conversations."""
    tower: Tower = Tower()
    language: Language = Language()
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0

    @model_validator(mode="after")
    def _begun(self) -> Self:
        if self.conversations and not self.texts and all(lesson.begins for lesson in self.conversations):
            raise ValueError("one of the conversations must begin at 0")
        return self
