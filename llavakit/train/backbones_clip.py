"""A small CLIP from scratch, trained contrastively on pictures and their captions, and on regions where there are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize, pad

from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, writing
from llavakit.base.log import progress
from llavakit.chat.conversation import Conversation
from llavakit.image.open import open_image
from llavakit.image.square import Square, normalise, square
from llavakit.model.attention import whole
from llavakit.model.quiet import quiet
from llavakit.train.backbones_language import BOS, EOS
from llavakit.train.backbones_regions import Region, described, phrase_loss, regions_for
from llavakit.train.backbones_spec import Backbones, Tower
from llavakit.train.scratch import optimise
from llavakit.train.start_tower import start_tower

_WHOLE = 4  # steps between two that also contrast whole pictures, where regions are known
_SHIFT = 0.027  # of the picture, by which it is moved at random: never out of its third


def pretrain_clip(
    spec: Backbones, conversations: Sequence[Conversation], tokenizer: Any, out: Path, metrics: JsonlLog
) -> None:
    from transformers import CLIPImageProcessorPil

    size = spec.tower
    if size.image_size % size.patch_size:
        raise BadRequest(f"image_size {size.image_size} is not a multiple of patch_size {size.patch_size}")
    how = Square(size=size.image_size)
    pixels = torch.from_numpy(
        np.stack(
            [square(open_image(c.images[0].source, c.where), how) for c in progress(conversations, desc="pictures")]
        )
    )
    text = tokenizer(
        [BOS + c.turns[1].text + EOS for c in conversations],
        add_special_tokens=False,
        padding=True,
        truncation=True,
        max_length=77,
        return_tensors="pt",
    )
    regions: list[list[Region]] = []
    if spec.regions is not None:
        known = described(spec.regions, tokenizer)
        regions = [regions_for(c, known, spec.regions) for c in conversations]
    torch.manual_seed(spec.seed)
    model = _clip(size, tokenizer, text.input_ids.shape[1])
    start_tower(model.vision_model, normalise(pixels[:300], how, torch.float32))
    model.vision_model.embeddings.patch_embedding.requires_grad_(False)
    rng = np.random.default_rng((spec.seed, 2))

    steps = itertools.count()

    def loss() -> torch.Tensor:
        chosen = rng.choice(len(pixels), min(size.batch_size, len(pixels)), replace=False)
        seen, across, down = _moved(normalise(pixels[chosen], how, torch.float32), rng)
        vision = model.vision_model
        states = vision.pre_layrnorm(vision.embeddings(seen))
        with whole(vision, states.device):
            for layer in vision.encoder.layers[:-1]:
                states = layer(states, None)
        losses = []
        if regions:  # of the layer that LLaVA looks at; the last one is CLS's own
            moved = [[_region_moved(region, across, down) for region in regions[i]] for i in chosen]
            losses.append(phrase_loss(model, states[:, 1:], moved, tokenizer.pad_token_id))
        if not regions or next(steps) % _WHOLE == 0:
            ids, mask = text.input_ids[chosen], text.attention_mask[chosen]
            longest = int(mask.sum(1).max())
            with whole(vision, states.device):
                states = vision.encoder.layers[-1](states, None)
            pooled = vision.post_layernorm(states[:, 0])
            losses.append(contrast(model, pooled, ids[:, :longest], mask[:, :longest]))
        return torch.stack(losses).sum()

    optimise("clip", model, loss, size.steps, size.lr, spec.precision, metrics)
    with writing(out) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        CLIPImageProcessorPil(
            size={"shortest_edge": size.image_size},
            crop_size={"height": size.image_size, "width": size.image_size},
        ).save_pretrained(temporary)


def _clip(size: Tower, tokenizer: Any, length: int) -> Any:
    """A CLIPModel whose text side is as slight as captions of a small world allow."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"hidden_act": "gelu", "projection_dim": size.width}
    text = size.width * 2 // 3 // 32 * 32
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **shared,
                "hidden_size": text,
                "intermediate_size": 4 * text,
                "num_attention_heads": text // 32,
                "num_hidden_layers": 1,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": length,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **shared,
                "hidden_size": size.width,
                "intermediate_size": 4 * size.width,
                "num_attention_heads": size.heads,
                "num_hidden_layers": size.layers,
                "image_size": size.image_size,
                "patch_size": size.patch_size,
            },
            projection_dim=size.width,
        )
    )
    # Plain attention: at some 65 tokens torch's fused CPU kernel is slower, most of all backward.
    model.set_attn_implementation("eager")
    return model


def contrast(model: Any, pooled: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """CLIP's loss. ``pooled`` float[B, D] of the pictures; ``ids``, ``mask`` int64[B, L] of their captions."""
    text = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
    image, caption = (
        normalize(x.float(), dim=-1) for x in (model.visual_projection(pooled), model.text_projection(text))
    )
    scores = model.logit_scale.exp() * caption @ image.T
    right = torch.arange(len(ids))
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


def _moved(pictures: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, float, float]:
    """Pictures ``[B, 3, S, S]`` moved together by a few pixels, and how far right and down, as shares of the side: so
    that a tower does not learn by heart how its few pictures fall on its patches."""
    side = pictures.shape[-1]
    reach = int(_SHIFT * side)
    left, top = (int(n) for n in rng.integers(0, 2 * reach + 1, 2))
    wide = pad(pictures, (reach, reach, reach, reach), mode="replicate")
    return wide[..., top : top + side, left : left + side], (reach - left) / side, (reach - top) / side


def _region_moved(region: Region, across: float, down: float) -> Region:
    x1, y1, x2, y2 = region.box
    return Region((x1 + across, y1 + down, x2 + across, y2 + down), region.ids)
