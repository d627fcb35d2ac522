"""The parity certificate: logits of an original checkpoint and of its native twin, on the same fixed inputs.

The original's side is :mod:`llavakit.convert.reference` over the original's files; the native side is transformers'
own model, loaded from the native directory as any user of it would.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.convert.original import Original
from llavakit.convert.reference import (
    IMAGE_INDEX,
    Weights,
    arranged,
    best_points,
    language,
    patches,
    project,
    splice,
)
from llavakit.convert.tensors import TensorFiles
from llavakit.model.checkpoint import resolve
from llavakit.model.quiet import quiet

BOUND = 1e-5
# Merged into 16-bit weights, a LoRA's deltas are rounded to them.
BOUND_MERGED = 5e-2
SEED, LENGTH = 0, 12
# Width and height of the prompts' pictures, in edges of a tile; the first prompt has none.
PICTURES = (None, (1.0, 1.0), (2.3, 0.9), (0.7, 2.9), (1.9, 1.7))
_TOWER = "model.vision_tower.vision_tower."


def certify(source: Original, native: Path) -> dict[str, Any]:
    """What ``parity.json`` says of an original directory and a native one.

    Raises :class:`WorkFailed` when the two sides differ by more than the bound.
    """
    from transformers import AutoModelForImageTextToText

    with quiet():
        model = AutoModelForImageTextToText.from_pretrained(native, dtype=torch.float32).eval()
    if model.config.vision_config.model_type != "clip_vision_model":
        raise BadRequest(f"the original's code builds CLIP towers only, not {model.config.vision_config.model_type}")
    generator = torch.Generator().manual_seed(SEED)
    table, weights = source.embeddings(), _weights(source)
    rows, worst = [], 0.0
    with torch.inference_mode():
        for number, shape in enumerate(PICTURES):
            words = min(len(table), model.config.image_token_id)
            ids = torch.randint(3, words, (LENGTH,), generator=generator).tolist()
            picture = None if shape is None else Picture(source, model.config.vision_config, shape, generator)
            if picture:
                ids.insert(2 * number, IMAGE_INDEX)
            features = picture.features(weights) if picture else None
            theirs = language(weights, model.config.text_config, splice(weights, ids, features))
            ours = _native_logits(model, ids, picture, 0 if features is None else len(features))[:, : theirs.shape[1]]
            largest = float(theirs.abs().max())
            next_ids = [int(row.argmax()) for row in (theirs[-1], ours[-1])]
            difference = float((ours - theirs).abs().max()) / largest
            worst = max(worst, difference)
            rows.append({"ids": ids, "largest": largest, "difference": difference, "next": next_ids})
    bound = BOUND_MERGED if source.lora and table.dtype != torch.float32 else BOUND
    if not worst <= bound:
        raise WorkFailed(f"the converted model's logits differ from the original's by {worst:.1e}, over {bound:.0e}")
    return {
        "what": "logits of the original's forward, re-derived, and of transformers' model, both in float32",
        "inputs": f"random token ids and pixels of seed {SEED}; -200 is the picture; without the added tokens' logits",
        "difference": worst,
        "bound": bound,
        "prompts": rows,
    }


class Picture:
    """Random pixels of a picture, in tiles where the model takes tiles, and what the original makes of them."""

    def __init__(self, source: Original, tower: Any, shape: tuple[float, float], generator: torch.Generator) -> None:
        self.source, self.tower = source, tower
        side = tower.image_size
        self.size = (int(shape[0] * side), int(shape[1] * side))
        self.grid = (0, 0)
        if source.tiled:
            width, height = best_points(self.size, source.config["image_grid_pinpoints"])
            self.grid = (width // side, height // side)
        self.pixels = torch.randn(1 + math.prod(self.grid), 3, side, side, generator=generator)

    def features(self, w: Weights) -> torch.Tensor:
        """``[n, H]``, by the original's description."""
        config = self.source.config
        layer, keep_cls = config["mm_vision_select_layer"], config["mm_vision_select_feature"] == "cls_patch"
        tiles = [
            project(w, self.source.connector, patches(w, f"{_TOWER}vision_model.", self.tower, tile, layer, keep_cls))
            for tile in self.pixels
        ]
        if not self.source.tiled:
            return tiles[0]
        return arranged(w, self.tower.image_size // self.tower.patch_size, torch.stack(tiles), self.size, self.grid)

    def inputs(self) -> dict[str, torch.Tensor]:
        """For transformers' model."""
        if not self.source.tiled:
            return {"pixel_values": self.pixels}
        return {"pixel_values": self.pixels[None], "image_sizes": torch.tensor([self.size[::-1]])}


def _native_logits(model: Any, ids: list[int], picture: Picture | None, features: int) -> torch.Tensor:
    """Logits ``[T, V]`` of transformers' model, which takes the picture as that many ids of its own."""
    image = model.config.image_token_id
    full = [token for given in ids for token in ([image] * features if given == IMAGE_INDEX else [given])]
    logits: torch.Tensor = model(input_ids=torch.tensor([full]), **(picture.inputs() if picture else {})).logits[0]
    return logits


def _weights(source: Original) -> Weights:
    outside = None if source.has_tower else TensorFiles.of(resolve(source.vision, "*.bin"))

    def get(name: str) -> torch.Tensor:
        if outside is not None and name.startswith(_TOWER):
            bare = name.removeprefix(_TOWER)
            return outside[bare if bare in outside else bare.removeprefix("vision_model.")]
        return source.tensor(name)

    lora = source.lora
    return Weights(get, lora.pairs if lora else None, lora.scale if lora else 0.0)
