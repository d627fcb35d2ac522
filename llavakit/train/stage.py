"""Recipe and Stage: everything that decides what a training run does, as one value."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest
from llavakit.chat.template import get_template
from llavakit.data.loader import OnBad
from llavakit.data.mixture import SourceSpec
from llavakit.data.sources.llava import ImageFirst
from llavakit.image.anyres import AnyRes, most_tokens
from llavakit.image.square import Decode, Mode
from llavakit.model.adapters import Lora
from llavakit.model.build import ModelSpec
from llavakit.model.lean import Recompute
from llavakit.model.parts import Part
from llavakit.train.backbones_spec import Backbones
from llavakit.train.guard import Guard
from llavakit.train.validation_spec import Validation

Sharding = Literal["all", "node"]


class Stage(Config):
    """One stage of training. ``train`` names the parts that learn and the peak learning rate of each; the rest is
    frozen. Defaults are LLaVA-1.5's (its Trainer clips gradients at 1.0)."""

    data: dict[str, SourceSpec]
    template: str
    train: dict[Part, float] = Field(min_length=1)
    tower_layers: int | None = Field(None, gt=0)
    """How many of the tower's layers train, from the last one that is used; None: all, and what comes before them."""
    lora: Lora | None = None
    """Adapters that train in place of the weights of the parts they are on."""
    batch_size: int = Field(gt=0)
    epochs: float = Field(1.0, gt=0)
    warmup: float = Field(0.03, ge=0)
    """Share of the steps in which the rate rises linearly, or, from 1 on, their number; then it is a cosine to 0."""
    optimiser: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """``muon``: Muon for the matrices inside the layers, AdamW for the rest; for training from scratch. ``adamw8bit``:
    AdamW whose moments take 2 bytes a weight instead of 8 (arXiv 2110.02861), in one process."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """What weights and gradients are held in. ``bfloat16`` halves them; new weights are rounded up or down by chance,
    since to the nearest most steps of a small rate would come to nothing. With ``adamw8bit``."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(1.0, gt=0)
    image: Mode | AnyRes = "pad"
    """How a picture is seen: as one square, or as tiles (``{grids: hd, global_view: pad}``, ``{grids: llava16}``)."""
    decode: Decode = "exact"
    """``fast``: pictures are prepared several times faster, about one level of 255 away from what evaluation sees."""
    image_first: ImageFirst = True
    """Whether ``<image>`` moves to the head of its turn, as LLaVA-1.5 does in stage 2; ``random``: before or after the
    text of its turn, as LLaVA's first data has it."""
    augment: bool = False
    """Random crops and flips of pictures whose text does not speak of what they would change."""
    row_tokens: int = Field(4096, gt=0)
    """Tokens that go through the model at once; a step is as many packed rows as its samples need."""
    eval_every: int | None = Field(None, gt=0)
    """Steps between validations, where something is held out or named in ``validation``; None: at the end alone."""
    validation: Validation = Validation()

    checkpoint: Recompute = "none"
    """What of the language model's layers backward computes again instead of keeping: ``layers``: all but their
    inputs; ``products``: all but these and the results of matrix products (less time, more memory)."""
    compile: bool = False
    """Whether the language model's layers are compiled, all but their attention, when they first run (a minute)."""
    features: str | None = None
    """A folder where the features of a tower that is frozen are kept, for later epochs and other runs."""
    features_gib: float = Field(100.0, gt=0)
    """How much that folder may hold."""

    @model_validator(mode="after")
    def _template_exists(self) -> Stage:
        get_template(self.template)
        return self

    @property
    def validates(self) -> bool:
        """Whether there is anything to measure it by."""
        held = any(spec.holdout for spec in self.data.values())
        return bool(held or self.validation.sources or self.validation.bench)

    @model_validator(mode="after")
    def _validation_is_coherent(self) -> Stage:
        own = self.validation
        if not self.validates and (self.eval_every is not None or own.keep_best):
            raise ValueError("eval_every: nothing is held out (data.NAME.holdout) or named in validation")
        losses = own.sources or any(spec.holdout for spec in self.data.values())
        known = [*(["loss"] if losses else []), *own.bench]
        if self.validates and own.best not in known and (own.best != "loss" or own.keep_best):
            raise ValueError(f"validation.best: {own.best!r} is not measured; measured are {', '.join(known)}")
        if twice := sorted(own.sources.keys() & {name for name, spec in self.data.items() if spec.holdout}):
            raise ValueError(f"validation.sources: {twice[0]!r} is the name of a source that holds records out")
        return self

    @model_validator(mode="after")
    def _is_coherent(self) -> Stage:
        for part, rate in self.train.items():
            if not (0 < rate < math.inf):
                raise ValueError(f"train.{part}: the rate {rate:g} trains nothing; give one above 0 or leave it out")
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(f"warmup: {self.warmup:g} is neither a share of the steps nor a number of them")
        if self.tower_layers is not None and "vision_tower" not in self.train:
            raise ValueError("tower_layers: vision_tower is not named in train, so none of its layers learns")
        if self.compile and self.checkpoint == "products":
            raise ValueError("checkpoint: products cannot be told apart inside compiled layers; choose layers or none")
        if self.features is not None and ("vision_tower" in self.train or self.augment):
            raise ValueError("features: they cannot be kept, since the tower trains or pictures are augmented")
        if self.decode == "fast" and isinstance(self.image, AnyRes):
            raise ValueError("decode: tiles are made of the picture's true size; fast is for one square")
        if self.weights == "bfloat16" and self.optimiser != "adamw8bit":
            raise ValueError(f"weights: {self.optimiser} would round small steps away; set optimiser=adamw8bit")
        if self.weights == "bfloat16" and self.lora is not None:
            raise ValueError("weights: adapters are small and stay float32; lora.base=nf4 makes what they are on small")
        for part in self.lora.parts if self.lora else ():
            if part not in self.train:
                raise ValueError(f"lora.parts: {part} is not named in train, so its adapters would not learn")
        return self

    def steps(self, samples: int) -> int:
        """Optimiser steps for ``samples`` an epoch, the last of an epoch of what is left."""
        return max(1, round(-(-samples // self.batch_size) * self.epochs))

    def image_tokens(self, square: int) -> int:
        """Of the picture that has most, where one square has ``square``."""
        return most_tokens(self.image.grids, math.isqrt(square)) if isinstance(self.image, AnyRes) else square


class Recipe(Config):
    """A whole run: the parts of the model, and the stages in order."""

    name: str
    model: ModelSpec = ModelSpec()
    backbones: Backbones | None = None
    """Small backbones to pretrain first, for whom no weights are at hand; they take the place of ``model``'s two."""
    stages: dict[str, Stage] = Field(min_length=1)
    max_length: int = Field(2048, gt=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of activations and matrix products; weights and optimiser states stay float32, but for a stage's ``weights`` and
    ``optimiser``."""
    seed: int = 0
    workers: int = Field(2, ge=0)
    on_bad: OnBad = "stop"
    guard: Guard = Guard()
    snapshot_every: int = Field(500, gt=0)
    """Optimiser steps between snapshots."""
    keep: int = Field(2, gt=0)
    """How many snapshots are kept; the best is kept besides."""
    sharding: Sharding = "all"
    """Over what several processes divide the model: ``all`` of them, or those of one ``node``, each of which then has a
    whole one (faster where machines are many and the network is slow; it takes more memory)."""

    @property
    def tiled(self) -> list[str]:
        """Stages that see pictures as tiles."""
        return [name for name, stage in self.stages.items() if isinstance(stage.image, AnyRes)]

    def check_room(self, square: int) -> None:
        """Raises :class:`BadRequest` when a picture of some stage may not fit; ``square``: tokens of one square."""
        for name, stage in self.stages.items():
            if (most := stage.image_tokens(square)) >= self.max_length:
                raise BadRequest(
                    f"stages.{name}.image: a picture takes up to {most} tokens and max_length is {self.max_length}; "
                    "raise it"
                )

    @model_validator(mode="after")
    def _backbones_named(self) -> Recipe:
        named = [self.model.vision is not None, self.model.language is not None]
        if self.backbones is None and not all(named):
            raise ValueError("model.vision and model.language are required (or backbones, to pretrain small ones)")
        if self.backbones is not None and any(named):
            raise ValueError("model.vision and model.language are given, and backbones too; choose one")
        return self

    @model_validator(mode="after")
    def _as_precise_as_its_weights(self) -> Recipe:
        for name, stage in self.stages.items():
            if stage.weights == "bfloat16" and self.precision != "bfloat16":
                raise ValueError(f"stages.{name}.weights: they are bfloat16 and products are to be {self.precision}")
        return self

    @model_validator(mode="after")
    def _tiles_to_the_end(self) -> Recipe:
        tiled = self.tiled
        if tiled and (self.model.keep_cls or self.model.format != "llava"):
            raise ValueError(
                f"stages.{tiled[0]}.image: llava_next of transformers has no CLS features and no other connectors; "
                "unset model.keep_cls and model.format"
            )
        if tiled != list(self.stages)[len(self.stages) - len(tiled) :]:
            raise ValueError(f"a stage after {tiled[0]!r} sees squares and would lose the row ends that it learnt")
        return self
