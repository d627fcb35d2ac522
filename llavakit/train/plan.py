"""What a recipe amounts to, before anything starts: parameters, what trains, steps, and memory for the states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from llavakit.base.errors import BadRequest
from llavakit.base.log import table
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.image.square import Square
from llavakit.model.build import outline
from llavakit.model.known import configuration
from llavakit.model.llava import Llava
from llavakit.model.parts import PARTS, Part, count
from llavakit.model.quantise import layer_linears
from llavakit.model.towers import vision_config
from llavakit.train.optim import check
from llavakit.train.shard import prepare
from llavakit.train.stage import Recipe, Stage

# float32 weights; for what trains also a float32 gradient and AdamW's two moments.
BYTES_KEPT, BYTES_TRAINED = 4, 12
BYTES_NF4 = 0.516
"""Half a byte a weight, a byte for the scale of 64 of them, and 4 for that of 256 such scales."""


@dataclass(frozen=True)
class StagePlan:
    name: str
    samples: int
    published: bool
    """Whether ``samples`` is the published size, because the file is not at hand."""
    steps: int
    trainable: int
    states_bytes: int


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    sizes: dict[Part, int]
    image_tokens: int
    """Of the picture that has most, in the last stage."""
    stages: list[StagePlan]

    @property
    def parameters(self) -> int:
        return sum(self.sizes.values())


def plan(recipe: Recipe) -> Plan:
    """Sizes from configurations alone; no weights are read. Raises :class:`BadRequest` for data of unknown size, and
    for a model that would be refused when it is built."""
    if recipe.backbones is not None:
        raise BadRequest(f"{recipe.name} pretrains its own backbones; a plan needs model.vision and model.language")
    model = empty(recipe)
    # Before anything is frozen: only what can never train, the identity of a linear connector, does not count.
    sizes: dict[Part, int] = {
        "vision_tower": count(model.vision_tower),
        "connector": count(model.multi_modal_projector, trainable=True),
        "language_model": count(model.language_model),
    }
    # A stage that puts adapters in has a model of its own.
    stages = [_stage(name, s, model if s.lora is None else empty(recipe)) for name, s in recipe.stages.items()]
    tokens = list(recipe.stages.values())[-1].image_tokens(model.image_tokens)
    return Plan(recipe, sizes, tokens, stages)


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


def text(plan: Plan) -> str:
    """The plan as aligned tables."""
    recipe = plan.recipe
    rows = [
        [name, f"{plan.sizes[name]:,}", *(_rate(stage, name) for stage in recipe.stages.values())] for name in PARTS
    ]
    rows.append(["total", f"{plan.parameters:,}", *("" for _ in recipe.stages)])
    parts = table(rows, ["part", "parameters", *(f"rate in {name}" for name in recipe.stages)])
    stages = table(
        [
            [
                s.name,
                recipe.stages[s.name].template,
                f"{s.samples:,}{' (published)' if s.published else ''}",
                str(recipe.stages[s.name].batch_size),
                f"{s.steps:,}",
                f"{s.trainable:,}",
                f"{s.states_bytes / 2**30:.1f} GiB",
            ]
            for s in plan.stages
        ],
        ["stage", "template", "samples", "batch", "steps", "trainable", "weights + gradients + AdamW"],
    )
    head = f"{recipe.name} ({recipe.hash()}): {recipe.model.vision} + {recipe.model.language}"
    notes = [
        f"\n{s.name}: the warm-up of {warmup:,.0f} steps is longer than the stage, whose rate ends at "
        f"{s.steps / warmup:.0%} of its peak"
        for s in plan.stages
        if (warmup := recipe.stages[s.name].warmup) > s.steps
    ]
    tokens = f"at most {plan.image_tokens} tokens per image, context {recipe.max_length}"
    return "\n".join([f"{head}\n{tokens}\n\n{parts}\n\n{stages}", *notes])


def _rate(stage: Stage, name: Part) -> str:
    if name not in stage.train:
        return "frozen"
    some = f", last {stage.tower_layers} layers" if name == "vision_tower" and stage.tower_layers else ""
    if stage.lora is not None and name in stage.lora.parts:
        some += f", {'DoRA' if stage.lora.dora else 'LoRA'} {stage.lora.rank}"
    return f"{stage.train[name]:g}{some}"


def _stage(name: str, stage: Stage, model: Llava) -> StagePlan:
    counts = [_samples(source) for source in stage.data.values()]
    samples = sum(number for number, _ in counts)
    kept = BYTES_KEPT * count(model)
    if stage.lora is not None and stage.lora.base == "nf4":
        packed = sum(linear.weight.numel() for linear in layer_linears(model.language_model).values())
        kept -= round((BYTES_KEPT - BYTES_NF4) * packed)
    with torch.device("meta"):
        # Adapters have one size, whatever the weights beside them are held in.
        prepare(model, stage if stage.lora is None else stage.evolve({"lora.base": "full"}), device="meta")
    trainable = count(model, trainable=True)
    return StagePlan(
        name=name,
        samples=samples,
        published=any(published for _, published in counts),
        steps=max(1, round(-(-samples // stage.batch_size) * stage.epochs)),
        trainable=trainable,
        states_bytes=kept + BYTES_TRAINED * trainable,
    )


def _samples(source: SourceSpec) -> tuple[int, bool]:
    """Records times weight, and whether that is the published number."""
    if source.records is not None and not Path(source.path).exists():
        return round(min(source.records, source.cap or source.records) * source.weight), True
    return len(Mixture.of({"data": source}, image_first=False)), False
