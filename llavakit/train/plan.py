"""What a recipe amounts to, before anything starts: parameters, what trains, steps, and memory for the states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from llavakit.base.errors import BadRequest
from llavakit.base.log import table
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.model.connector import connector_parameters
from llavakit.model.known import configuration
from llavakit.model.parts import PARTS, Part, count
from llavakit.model.towers import patch_tokens, vision_config
from llavakit.train.stage import Recipe, Stage

# float32 weights; for what trains also a float32 gradient and AdamW's two moments.
BYTES_KEPT, BYTES_TRAINED = 4, 12


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
    """Sizes from configurations alone; no weights are read. Raises :class:`BadRequest` for data of unknown size."""
    if recipe.backbones is not None:
        raise BadRequest(f"{recipe.name} pretrains its own backbones; a plan needs model.vision and model.language")
    spec = recipe.model
    assert spec.vision is not None and spec.language is not None
    vision, language = vision_config(configuration(spec.vision)), configuration(spec.language)
    from transformers import AutoModel, AutoModelForCausalLM

    square = patch_tokens(vision, spec.keep_cls)
    recipe.check_room(square)
    with torch.device("meta"):
        sizes: dict[Part, int] = {
            "vision_tower": count(AutoModel.from_config(vision)),
            "connector": connector_parameters(vision.hidden_size, language.hidden_size, spec.connector),
            "language_model": count(AutoModelForCausalLM.from_config(language)),
        }
    stages = [_stage(name, stage, sizes) for name, stage in recipe.stages.items()]
    tokens = list(recipe.stages.values())[-1].image_tokens(square)
    return Plan(recipe, sizes, tokens, stages)


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
    return f"{head}\nat most {plan.image_tokens} tokens per image, context {recipe.max_length}\n\n{parts}\n\n{stages}"


def _rate(stage: Stage, name: Part) -> str:
    return f"{stage.train[name]:g}" if name in stage.train else "frozen"


def _stage(name: str, stage: Stage, sizes: dict[Part, int]) -> StagePlan:
    counts = [_samples(source) for source in stage.data.values()]
    samples = sum(number for number, _ in counts)
    trainable = sum(sizes[part] for part in stage.train)
    return StagePlan(
        name=name,
        samples=samples,
        published=any(published for _, published in counts),
        steps=max(1, round(-(-samples // stage.batch_size) * stage.epochs)),
        trainable=trainable,
        states_bytes=BYTES_KEPT * sum(sizes.values()) + BYTES_TRAINED * trainable,
    )


def _samples(source: SourceSpec) -> tuple[int, bool]:
    """Records times weight, and whether that is the published number."""
    if source.records is not None and not Path(source.path).exists():
        return round(min(source.records, source.cap or source.records) * source.weight), True
    return len(Mixture.of({"data": source}, image_first=False)), False
