"""The parity certificate: logits of an original checkpoint and of its native twin, on the same fixed inputs.

The original's side is :mod:`llavakit.convert.reference` over the original's files; the native side is transformers'
own model, loaded from the native directory as any user of it would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llavakit.base.errors import WorkFailed
from llavakit.convert.original import Original
from llavakit.convert.reference import IMAGE_INDEX, Weights, language, patches, project, splice
from llavakit.convert.tensors import TensorFiles
from llavakit.model.checkpoint import resolve
from llavakit.model.quiet import quiet

BOUND = 1e-5
# Merged into 16-bit weights, a LoRA's deltas are rounded to them.
BOUND_MERGED = 5e-2
SEED, PROMPTS, LENGTH = 0, 4, 12


def certify(source: Original, native: Path) -> dict[str, Any]:
    """What ``parity.json`` says of an original directory and a native one.

    Raises :class:`WorkFailed` when the two sides differ by more than the bound.
    """
    from transformers import AutoModelForImageTextToText

    with quiet():
        model = AutoModelForImageTextToText.from_pretrained(native, dtype=torch.float32).eval()
    text, tower = model.config.text_config, model.config.vision_config
    generator = torch.Generator().manual_seed(SEED)
    table = source.embeddings()
    words = min(len(table), model.config.image_token_id)
    weights = _weights(source)
    prefix = "model.vision_tower.vision_tower.vision_model."
    layer, keep_cls = source.config["mm_vision_select_layer"], source.config["mm_vision_select_feature"] == "cls_patch"
    worst, rows = 0.0, []
    with torch.inference_mode():
        for number in range(PROMPTS):
            ids = torch.randint(3, words, (LENGTH,), generator=generator).tolist()
            pixels = torch.randn(3, tower.image_size, tower.image_size, generator=generator)
            if number:  # the first prompt has no picture
                ids.insert(2 * number, IMAGE_INDEX)
            features = project(weights, source.connector, patches(weights, prefix, tower, pixels, layer, keep_cls))
            theirs = language(weights, text, splice(weights, ids, features))
            ours = _native_logits(model, ids, pixels, len(features))[:, : theirs.shape[1]]
            difference = float((ours - theirs).abs().max() / theirs.abs().max())
            worst = max(worst, difference)
            next_ids = [int(row.argmax()) for row in (theirs[-1], ours[-1])]
            rows.append({"ids": ids, "largest": float(theirs.abs().max()), "difference": difference, "next": next_ids})
    bound = BOUND_MERGED if source.lora and table.dtype != torch.float32 else BOUND
    result = {
        "what": "logits of the original's forward, re-derived, and of transformers' model, both in float32",
        "inputs": f"random token ids and pixels of seed {SEED}; -200 is the picture; without the added tokens' logits",
        "difference": worst,
        "bound": bound,
        "prompts": rows,
    }
    if not worst <= bound:
        raise WorkFailed(f"the converted model's logits differ from the original's by {worst:.1e}, over {bound:.0e}")
    return result


def _native_logits(model: Any, ids: list[int], pixels: torch.Tensor, patches: int) -> torch.Tensor:
    """Logits ``[T, V]`` of transformers' model, which takes the picture as that many ids of its own."""
    image = model.config.image_token_id
    full = [token for given in ids for token in ([image] * patches if given == IMAGE_INDEX else [given])]
    pictures = {"pixel_values": pixels[None]} if IMAGE_INDEX in ids else {}
    logits: torch.Tensor = model(input_ids=torch.tensor([full]), **pictures).logits[0]
    return logits


def _weights(source: Original) -> Weights:
    outside = None if source.has_tower else TensorFiles.of(resolve(source.vision))

    def get(name: str) -> torch.Tensor:
        if outside is not None and "vision_tower" in name:
            bare = name.removeprefix("model.vision_tower.vision_tower.")
            return outside[bare if bare in outside else bare.removeprefix("vision_model.")]
        return source.tensor(name)

    lora = source.lora
    return Weights(get, lora.pairs if lora else None, lora.scale if lora else 0.0)
