"""What ``data doctor`` and ``data show`` look at, and how a recipe would read it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavakit.data.mixture import SourceSpec
    from llavakit.data.show.page import How
    from llavakit.train.stage import Recipe, Stage


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a .json or .jsonl file of conversations, or a recipe (then its stage's data)")
    parser.add_argument("--images", help="folder of the images (default: beside the file, or as the recipe says)")
    parser.add_argument("--tokenizer", help="directory of the model or tokenizer that counts tokens")
    parser.add_argument(
        "--as",
        dest="recipe",
        default="llava15-7b",
        help="recipe whose template, lengths and image tokens count for a file (default: %(default)s)",
    )
    parser.add_argument("--stage", help="its stage (default: the last)")


def is_file(target: str) -> bool:
    """Whether it names a data file: recipes are names or YAML, or JSON that is a mapping."""
    from pathlib import Path

    if Path(target).suffix == ".jsonl":
        return True
    if Path(target).suffix != ".json":
        return False
    with open(target, encoding="utf-8-sig") as file:
        return file.read(256).lstrip()[:1] != "{"


def sources(args: argparse.Namespace) -> tuple[dict[str, SourceSpec], Recipe, Stage]:
    """The files to look at, and the recipe and stage that say how they are read.

    Raises :class:`~llavakit.base.errors.BadRequest` for an unknown recipe or stage, or a file that is not there.
    """
    from pathlib import Path

    from llavakit.base.errors import BadRequest, nearest
    from llavakit.data.mixture import SourceSpec
    from llavakit.data.shards import is_shards
    from llavakit.data.tars import LIST
    from llavakit.recipes import resolve

    path = Path(args.target)
    if (path / LIST).is_file():
        raise BadRequest(f"{path} is a folder of shards; give the file that they were written from")
    if path.suffix in (".json", ".jsonl") and not path.is_file():
        raise BadRequest(f"no file at {path}")
    own = is_file(args.target)
    recipe = resolve(args.recipe if own else args.target)
    stage = args.stage or list(recipe.stages)[-1]
    if stage not in recipe.stages:
        raise BadRequest(f"{recipe.name} has no stage {stage!r}{nearest(stage, list(recipe.stages))}")
    chosen = recipe.stages[stage]
    if own:
        return {path.stem: SourceSpec(path=str(path), images=args.images)}, recipe, chosen
    if stored := [name for name, spec in chosen.data.items() if is_shards(spec.path)]:
        raise BadRequest(f"{', '.join(stored)}: shards; give the file that they were written from")
    given = {"images": args.images} if args.images else {}
    return {name: spec.evolve(given) for name, spec in chosen.data.items()}, recipe, chosen


def how(args: argparse.Namespace, recipe: Recipe, stage: Stage) -> How:
    """How the recipe's stage reads records, without any weights. Raises :class:`BadRequest` when a tokenizer is given
    and nothing says how many tokens an image takes."""
    from pathlib import Path

    import torch

    from llavakit.base.errors import BadRequest
    from llavakit.chat.template import get_template
    from llavakit.data.measure import load_tokenizer
    from llavakit.data.show.page import How
    from llavakit.image.anyres import AnyRes
    from llavakit.image.square import Square
    from llavakit.model.checkpoint import load_description
    from llavakit.model.encode import Codec
    from llavakit.model.known import configuration
    from llavakit.model.towers import vision_config
    from llavakit.train.plan import empty

    template, codec, patches = get_template(stage.template), None, 0
    square = Square(size=336, mode=stage.image.global_view if isinstance(stage.image, AnyRes) else stage.image)
    # A checkpoint's own tower, where the tokenizer's directory is one: it goes before the recipe's.
    own = args.tokenizer and is_model(args.tokenizer)
    tower = args.tokenizer if own else recipe.model.vision
    if tower is not None:
        vision = vision_config(configuration(tower))
        square, patches = square.evolve(size=vision.image_size), vision.image_size // vision.patch_size
    if args.tokenizer:
        if tower is None:
            raise BadRequest(f"{recipe.name} names no vision tower; give --tokenizer a whole checkpoint's directory")
        model = load_description(Path(args.tokenizer), torch.float32, "meta")[0] if own else empty(recipe)
        codec = Codec(load_tokenizer(args.tokenizer), template, square, model.image_tokens, recipe.max_length).seeing(
            stage.image
        )
    return How(
        template, square, patches, stage.image_first, recipe.max_length, stage.batch_size, stage.row_tokens, codec
    )


def is_model(path: str) -> bool:
    """Whether a directory holds a model with a vision tower."""
    from pathlib import Path

    from llavakit.base.files import read_json

    config = Path(path, "config.json")
    return config.is_file() and "vision_config" in read_json(config)
