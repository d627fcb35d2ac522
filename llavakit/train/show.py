"""What a recipe's stages supervise, token by token, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.chat.labels import IGNORE
from llavakit.chat.template import get_template
from llavakit.data.mixture import Mixture
from llavakit.model.build import ModelSpec, build
from llavakit.model.encode import Codec, encode
from llavakit.train.stage import Recipe


def token_view(recipe: Recipe, backbones: Path, per_stage: int) -> list[dict[str, Any]]:
    """The first samples of each stage, one a source: ``{"stage", "source", "image", "tokens"}`` where a token is
    ``[text, supervised, is_image]``."""
    model, tokenizer = build(
        ModelSpec(vision=str(backbones / "clip"), language=str(backbones / "language")), recipe.seed
    )
    views = []
    for number, (name, stage) in enumerate(recipe.stages.items()):
        codec = Codec(tokenizer, get_template(stage.template), model.square, model.image_tokens, recipe.max_length)
        codec = codec.seeing(stage.image, stage.decode)
        mixture = Mixture.of(stage.data, stage.image_first, recipe.seed + number)
        seen: set[int] = set()
        for source, record in mixture.order(0):
            if len(seen) == per_stage:
                break
            if int(source) in seen and len(stage.data) >= per_stage:
                continue
            seen.add(int(source) if len(stage.data) >= per_stage else len(seen))
            conversation = mixture.at(int(source), int(record))
            example = encode(conversation, codec)
            tokens = [
                [tokenizer.decode([int(token)]), int(label != IGNORE), int(token == codec.image_id)]
                for token, label in zip(example.ids, example.labels, strict=True)
            ]
            image = str(conversation.images[0].source) if conversation.images else None
            views.append({"stage": name, "source": mixture.names[int(source)], "image": image, "tokens": tokens})
    return views
