"""How large small backbones are, and how long they are pretrained."""

from __future__ import annotations

from typing import Literal

from llavakit.base.config import Config
from llavakit.data.mixture import SourceSpec


class Tower(Config):
    """Size of the CLIP. Its image side is a multiple of the patch side."""

    image_size: int = 112
    patch_size: int = 14
    width: int = 192
    layers: int = 4
    heads: int = 4
    batch_size: int = 128
    steps: int = 300
    lr: float = 1e-3


class Language(Config):
    """Size of the language model and of its tokenizer."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 2048
    batch_tokens: int = 4096
    row: int = 256
    steps: int = 300
    lr: float = 2e-3


class Backbones(Config):
    """What to pretrain, and on what: captions with images in LLaVA's format, and any number of text files (the
    captions' own text is always part of it)."""

    captions: SourceSpec
    texts: tuple[str, ...] = ()
    tower: Tower = Tower()
    language: Language = Language()
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
