"""The model that a stage begins with: built from its parts, or what the stage before it has left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llavakit.base.dist import first, world_size
from llavakit.chat.template import get_template
from llavakit.model.build import ModelSpec, build, outline, weightless
from llavakit.model.checkpoint import open_checkpoint
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.tensors import Give
from llavakit.train.backbones import connect
from llavakit.train.optim import check
from llavakit.train.shard import broadcast
from llavakit.train.stage import Recipe


def begin(recipe: Recipe, number: int, out: Path) -> tuple[Llava, Codec, Give | None]:
    """The model of stage ``number``, with that stage's template and preprocessing, and what its weights are to be
    filled from, layer by layer (None: it has them)."""
    names = list(recipe.stages)
    give: Give | None
    if number:
        model, codec, give = open_checkpoint(out / "stages" / names[number - 1])
    else:
        model, tokenizer, give = _from_parts(recipe, out)
        codec = Codec(tokenizer, get_template("plain"), model.square, model.image_tokens)
    stage = recipe.stages[names[number]]
    template = get_template(stage.template)
    codec = replace(codec, template=template, max_length=recipe.max_length).seeing(stage.image, stage.decode)
    model.square = codec.square
    if codec.grids is not None and model.image_newline is None:
        model.add_newline(recipe.seed)
    return model, codec, give


def _from_parts(recipe: Recipe, out: Path) -> tuple[Llava, Any, Give | None]:
    """The first rank loads the parts and joins them; the others get an outline, and all of them its weights."""
    built: list[Llava] = []
    spec = _parts(recipe, out)

    def work() -> tuple[Any, ...]:
        model, tokenizer = build(spec, recipe.seed)
        recipe.check_room(model.image_tokens)
        for stage in recipe.stages.values():
            check(model, stage)
        if recipe.backbones is not None:
            codec = Codec(tokenizer, get_template("plain"), model.square, model.image_tokens)
            connect(model, recipe.backbones, codec)
        built.append(model)
        return model.vision_tower.config, model.language_model.config, model.square, tokenizer

    vision, language, square, tokenizer = first(work)
    if world_size() == 1:
        return built[0], tokenizer, None
    with weightless():
        model = outline(vision, language, spec, square)
    return model, tokenizer, broadcast(built[0] if built else None)


def _parts(recipe: Recipe, out: Path) -> ModelSpec:
    """What the model is built from: the recipe's backbones, or those that this run has pretrained."""
    if recipe.backbones is None:
        return recipe.model
    own = out / "backbones"
    return recipe.model.evolve(vision=str(own / "clip"), language=str(own / "language"))
