"""A small CLIP from scratch, trained contrastively on pictures and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, writing
from llavakit.base.log import progress
from llavakit.chat.conversation import Conversation
from llavakit.image.open import open_image
from llavakit.image.square import Square, normalise, square
from llavakit.model.attention import whole
from llavakit.model.quiet import quiet
from llavakit.train.backbones_language import BOS, EOS
from llavakit.train.backbones_spec import Backbones
from llavakit.train.scratch import optimise
from llavakit.train.start import start_tower


def pretrain_clip(
    spec: Backbones, conversations: Sequence[Conversation], language: Path, out: Path, metrics: JsonlLog
) -> None:
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    size = spec.tower
    if size.image_size % size.patch_size:
        raise BadRequest(f"image_size {size.image_size} is not a multiple of patch_size {size.patch_size}")
    tokenizer = AutoTokenizer.from_pretrained(language)
    how = Square(size=size.image_size)
    pixels = torch.from_numpy(
        np.stack(
            [square(open_image(c.images[0].source, c.where), how) for c in progress(conversations, desc="pictures")]
        )
    )
    captions = [c.turns[1].text for c in conversations]
    text = tokenizer(
        [BOS + caption + EOS for caption in captions],
        add_special_tokens=False,
        padding=True,
        truncation=True,
        max_length=77,
        return_tensors="pt",
    )
    torch.manual_seed(spec.seed)
    shared = {
        "hidden_act": "gelu",
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_attention_heads": size.heads,
        "projection_dim": size.width,
    }
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **shared,
                "num_hidden_layers": 2,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": text.input_ids.shape[1],
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **shared,
                "num_hidden_layers": size.layers,
                "image_size": size.image_size,
                "patch_size": size.patch_size,
            },
            projection_dim=size.width,
        )
    )
    # Plain attention: at some 65 tokens torch's fused CPU kernel is slower, most of all backward.
    model.set_attn_implementation("eager")
    start_tower(model.vision_model.embeddings, normalise(pixels[:300], how, torch.float32))
    rng = np.random.default_rng((spec.seed, 2))

    def loss() -> torch.Tensor:
        chosen = torch.from_numpy(rng.choice(len(captions), min(size.batch_size, len(captions)), replace=False))
        seen = normalise(pixels[chosen], how, torch.float32)
        return contrast(model, seen, text.input_ids[chosen], text.attention_mask[chosen])

    optimise("clip", model, loss, size.steps, size.lr, spec.precision, metrics)
    with writing(out) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        CLIPImageProcessorPil(
            size={"shortest_edge": size.image_size},
            crop_size={"height": size.image_size, "width": size.image_size},
        ).save_pretrained(temporary)


def contrast(model: Any, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """CLIP's loss, and beside it one for each word: of all pictures, its own has the patch that is most like it.

    CLIP's own trains patches only through CLS, and a minute of that leaves little in them to look at, while LLaVA takes
    patches. The words' is late interaction (FILIP, arXiv 2111.07783), but with a softmax a word, not a caption: so a
    pattern is learnt even where colours would do to tell the captions apart.
    ``pixels`` float[B, 3, S, S]; ``ids``, ``mask`` int64[B, L].
    """
    with whole(model.vision_model, pixels):
        vision = model.vision_model(pixel_values=pixels)
    text = model.text_model(input_ids=ids, attention_mask=mask)
    patches = model.visual_projection(model.vision_model.post_layernorm(vision.last_hidden_state[:, 1:]))
    owner, _ = mask.nonzero(as_tuple=True)
    words = model.text_projection(text.last_hidden_state[mask.bool()])
    image, caption = model.visual_projection(vision.pooler_output), model.text_projection(text.pooler_output)
    patches, words, image, caption = (
        torch.nn.functional.normalize(x.float(), dim=-1) for x in (patches, words, image, caption)
    )
    scale = model.logit_scale.exp()
    found = scale * torch.stack([(words @ picture.T).amax(1) for picture in patches], dim=1)  # [words, B]
    pairs = scale * caption @ image.T
    right = torch.arange(len(ids))
    entropy = torch.nn.functional.cross_entropy
    return (entropy(pairs, right) + entropy(pairs.T, right)) / 2 + entropy(found, owner)
