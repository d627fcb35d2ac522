"""What a recipe amounts to, before anything starts: parameters, what trains, steps, tokens, FLOPs; and on given
machines, memory, hours and cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llavakit.base.errors import BadRequest
from llavakit.base.log import progress
from llavakit.chat.template import get_template
from llavakit.data.lengths import SAMPLED, Lengths, Sizes, measured, published
from llavakit.data.mixture import open_source
from llavakit.image.anyres import AnyRes
from llavakit.image.square import Square
from llavakit.model.build import grow_tokenizer, load_tokenizer, outline
from llavakit.model.encode import Codec
from llavakit.model.known import configuration
from llavakit.model.llava import Llava
from llavakit.model.parts import PARTS, Part, count, part
from llavakit.model.towers import vision_config
from llavakit.train.budget import Budget, Memory, largest_row
from llavakit.train.flops import Cost, Work
from llavakit.train.gpus import Gpu
from llavakit.train.optim import check
from llavakit.train.preflight import check_ranks
from llavakit.train.schedule import warmup_steps
from llavakit.train.shard import prepare
from llavakit.train.stage import Recipe, Stage

ASSUMED = Lengths(text=256, spread=0.8, supervised=0.4)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Machines:
    """``count`` GPUs, ``node`` of them in each machine, at ``mfu`` of their peak."""

    gpu: Gpu
    count: int = 8
    mfu: float = 0.4
    price: float | None = None
    """Dollars for an hour of one GPU; None: the table's."""
    node: int = 8

    def shares(self) -> dict[str, int]:
        """Ways of sharing a model, and among how many GPUs each divides it."""
        ways = {"none": 1}
        if self.count > 1:
            ways["FSDP"] = self.count
        if self.count > self.node:
            ways[f"HSDP {self.count // self.node}x{self.node}"] = self.node
        return ways


@dataclass(frozen=True)
class StagePlan:
    name: str
    samples: int
    published: bool
    """Whether ``samples`` is the published size, because the file is not at hand."""
    lengths: str
    """Where the tokens come from: "measured" in the file, "recipe", or "assumed"."""
    steps: int
    trainable: dict[Part, int]
    tokens: float
    flops: float
    warmup: int
    hours: float | None = None
    """Also of what is computed again (``checkpoint``), which ``flops`` does not count."""
    cost: float | None = None
    memory: dict[str, Memory] = field(default_factory=dict)
    """By way of sharing."""


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    sizes: dict[Part, int]
    image_tokens: int
    """Of the picture that has most, in the last stage."""
    stages: list[StagePlan]
    machines: Machines | None = None

    @property
    def parameters(self) -> int:
        return sum(self.sizes.values())

    def plain(self) -> dict[str, Any]:
        """As JSON data; memory in bytes."""
        stages = [
            asdict(stage) | {"memory": {way: asdict(m) | {"total": m.total} for way, m in stage.memory.items()}}
            for stage in self.stages
        ]
        return {
            "recipe": self.recipe.name,
            "recipe_hash": self.recipe.hash(),
            "parameters": {**self.sizes, "total": self.parameters},
            "image_tokens": self.image_tokens,
            "machines": asdict(self.machines) if self.machines else None,
            "stages": stages,
        }


def plan(recipe: Recipe, machines: Machines | None = None) -> Plan:
    """Sizes from configurations alone; no weights are read. Without ``machines`` there are no memory, hours and cost.

    Raises :class:`BadRequest` for data of unknown size, and for a model that would be refused when it is built.
    """
    if recipe.backbones is not None:
        raise BadRequest(f"{recipe.name} pretrains its own backbones; a plan needs model.vision and model.language")
    model = empty(recipe)
    # Before anything is frozen: only what can never train, the identity of a linear connector, does not count.
    sizes: dict[Part, int] = {name: count(part(model, name), trainable=name == "connector") for name in PARTS}
    sizes["vision_tower"] = count(model.vision_tower)
    tokens = list(recipe.stages.values())[-1].image_tokens(model.image_tokens)
    names = progress(list(recipe.stages), desc="plan", unit="stage")
    return Plan(recipe, sizes, tokens, [_stage(recipe, name, model.image_tokens, machines) for name in names], machines)


def empty(recipe: Recipe) -> Llava:
    """The recipe's model without its tensors."""
    spec = recipe.model
    assert spec.vision is not None and spec.language is not None
    vision, language = vision_config(configuration(spec.vision)), configuration(spec.language)
    with torch.device("meta"):
        model = outline(vision, language, spec, Square(size=vision.image_size))
    recipe.check_room(model.image_tokens)
    for stage in recipe.stages.values():
        check(model, stage)
    return model


def budget(recipe: Recipe, name: str, sizes: Sizes) -> tuple[Llava, Budget]:
    """A stage's model, with what trains in it, and its memory for samples of such ``sizes``."""
    stage, model = recipe.stages[name], empty(recipe)
    if isinstance(stage.image, AnyRes):
        model.add_newline()
    with torch.device("meta"):
        # Adapters have one size, whatever the weights beside them are held in.
        prepare(model, stage if stage.lora is None else stage.evolve({"lora.base": "full"}), device="meta")
    row = largest_row(sizes, stage, model.image_tokens)
    return model, Budget(model, stage, row, PRECISIONS[recipe.precision])


def stage_sizes(recipe: Recipe, name: str, square: int) -> tuple[Sizes, int, bool, str]:
    """Samples as an epoch of a stage has them, their number, whether that is the published one, and where their
    lengths are from. ``square``: tokens of a picture that is one square."""
    stage = recipe.stages[name]
    found = list(_sources(recipe, stage, square))
    total = sum(number for _, number, _, _ in found)
    rng = np.random.default_rng(0)
    parts = [
        # Each once before any twice, or a few long ones would move the mean.
        sizes.take(np.resize(rng.permutation(len(sizes.tokens)), max(1, round(SAMPLED * number / total))))
        for sizes, number, _, _ in found
    ]
    joined = Sizes.join(parts)
    kinds = dict.fromkeys(kind for _, _, _, kind in found)
    shuffled = joined.take(rng.permutation(len(joined.tokens)))
    return shuffled, total, any(known for _, _, known, _ in found), " and ".join(kinds)


def _stage(recipe: Recipe, name: str, square: int, machines: Machines | None) -> StagePlan:
    stage = recipe.stages[name]
    if machines is not None:
        check_ranks(name, stage, machines.count)
    sizes, samples, known, lengths = stage_sizes(recipe, name, square)
    model, memory = budget(recipe, name, sizes)
    cost = Cost.of(model)
    work = Work(*(float(np.mean(v)) for v in (sizes.tokens, sizes.tokens**2, sizes.supervised, sizes.pictures)))
    seen = samples * stage.epochs
    steps = stage.steps(samples)
    found = StagePlan(
        name=name,
        samples=samples,
        published=known,
        lengths=lengths,
        steps=steps,
        trainable={key: count(part(model, key), trainable=True) for key in PARTS},
        tokens=work.tokens * seen,
        flops=cost(work * seen),
        warmup=warmup_steps(steps, stage.warmup),
    )
    if machines is None:
        return found
    computed = found.flops + cost.again(work * seen, stage.checkpoint)
    hours = computed / (machines.count * machines.gpu.tflops * 1e12 * machines.mfu) / 3600
    price = machines.gpu.price if machines.price is None else machines.price
    ways = {way: memory.whole() if ranks == 1 else memory.sharded(ranks) for way, ranks in machines.shares().items()}
    return replace(found, hours=hours, cost=None if price is None else hours * machines.count * price, memory=ways)


def _sources(recipe: Recipe, stage: Stage, square: int) -> Iterator[tuple[Sizes, int, bool, str]]:
    """Of every source: some sizes, samples an epoch, whether that number is the published one, whence the sizes."""
    spec = recipe.model
    assert spec.vision is not None and spec.language is not None
    vision = vision_config(configuration(spec.vision))
    most = stage.image_tokens(square)
    tiles = 1 + max(a * b for a, b in stage.image.grids) if isinstance(stage.image, AnyRes) else 1
    codec = None
    for name, source in stage.data.items():
        if source.records is not None and not Path(source.path).exists():
            number = round(min(source.records - source.holdout, source.cap or source.records) * source.weight)
            sizes = published(source.lengths or ASSUMED, most, tiles, recipe.max_length)
            yield sizes, number, True, "recipe" if source.lengths else "assumed"
            continue
        opened = open_source(name, source, stage.image_first, recipe.seed)
        number = round(len(opened) * source.weight)
        codec = codec or _codec(spec.language, Square(size=vision.image_size), square, stage, recipe.max_length)
        sizes = measured(opened, codec, tiles) if codec else published(ASSUMED, most, tiles, recipe.max_length)
        if not len(sizes.tokens):
            raise BadRequest(f"stages: none of the sampled records of {source.path} can be used; llavakit data doctor")
        yield sizes, number, False, "measured" if codec else "assumed"


def _codec(language: str, square: Square, tokens: int, stage: Stage, max_length: int) -> Codec | None:
    """What training will encode with; None where the tokenizer cannot be had here."""
    try:
        tokenizer = load_tokenizer(language)
    except BadRequest:
        return None
    grow_tokenizer(tokenizer)
    codec = Codec(tokenizer, get_template(stage.template), square, tokens, max_length)
    return codec.seeing(stage.image)
