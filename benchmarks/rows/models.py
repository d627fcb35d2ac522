"""Logits of models built from parts, family by family: saved, and loaded by plain transformers."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import relative, row
from llavakit.chat.conversation import Conversation, ImageRef, Turn
from llavakit.chat.template import get_template
from llavakit.data.collate import collate
from llavakit.image.square import normalise
from llavakit.model import checkpoint
from llavakit.model.build import ModelSpec, build
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.quiet import quiet
from tests.tiny import save_language, save_tower

BOUND = 1e-5
# Name -> tower, language model, and what else is chosen.
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "CLIP + Llama": ("clip", "llama", {}),
    "SigLIP + Llama": ("siglip", "llama", {}),
    "CLIP + Mistral (sliding window)": ("clip", "mistral", {}),
    "CLIP + Qwen2 (tied, no BOS)": ("clip", "qwen2", {}),
    "CLIP + Qwen3 (no BOS)": ("clip", "qwen3", {}),
    "CLIP + Phi-3 (sliding window)": ("clip", "phi3", {}),
    "SigLIP + Llama 3 (scaled rotary positions)": ("siglip", "llama3", {}),
    "CLIP + Phi-4 (part of a head turned, long rope)": ("clip", "phi4", {}),
    "CLIP + Gemma (tied, scaled)": ("clip", "gemma", {}),
    "CLIP + Gemma 3 (windows of some layers)": ("clip", "gemma3", {}),
    "DINOv2 + Llama": ("dinov2", "llama", {}),
    "DINOv2 with registers + Llama": ("dinov2_registers", "llama", {"keep_cls": True}),
    "DINOv3 + Qwen3": ("dinov3", "qwen3", {}),
    "CLIP, last layer, CLS kept": ("clip", "llama", {"feature_layer": -1, "keep_cls": True}),
    "SigLIP, last layer": ("siglip", "llama", {"feature_layer": -1}),
    "DINOv3, last layer": ("dinov3", "llama", {"feature_layer": -1}),
    "CLIP, layers -2 and 1 side by side": ("clip", "llama", {"feature_layer": (-2, 1)}),
    "CLIP, linear connector": ("clip", "llama", {"connector": "linear"}),
}


def made(vision: str, language: str, out: Path, **choices: Any) -> tuple[Any, Codec]:
    """A tiny model of two families, and its codec."""
    bos = not language.startswith("qwen")
    spec = ModelSpec(
        vision=str(save_tower(vision, out / "vision")),
        language=str(save_language(language, out / "language", bos)),
        **choices,
    )
    model, tokenizer = build(spec)
    return model.eval(), Codec(tokenizer, get_template("vicuna_v1"), model.square, model.image_tokens, 512)


def talks() -> list[Conversation]:
    """Three conversations: of one picture, of none, of two."""
    rng = np.random.default_rng(0)
    one, two = (ImageRef(Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8))) for s in ((30, 40), (50, 20)))
    said = [("<image>\nWhat is it?", "A red circle.", (one,)), ("Say yes.", "Yes, and TAXI.", ())]
    said.append(("<image>\nand <image>\nSame?", "No", (one, two)))
    return [Conversation((Turn("user", q), Turn("assistant", a)), images) for q, a, images in said]


def their_logits(model: Any, example: Example, codec: Codec) -> torch.Tensor:
    """Logits ``[L, V]`` of transformers' model."""
    pixels = torch.from_numpy(example.pixels)
    with torch.no_grad():
        out = model(
            input_ids=torch.from_numpy(example.ids)[None],
            pixel_values=normalise(pixels, codec.square, torch.float32) if len(pixels) else None,
        )
    logits: torch.Tensor = out.logits[0]
    return logits


def difference(vision: str, language: str, **choices: Any) -> float:
    """Largest difference of the logits over the largest logit: ours, packed in one row, against transformers'."""
    from transformers import AutoModelForImageTextToText

    with tempfile.TemporaryDirectory() as folder, quiet():
        model, codec = made(vision, language, Path(folder), **choices)
        checkpoint.save(model, codec, Path(folder, "model"))
        theirs, info = AutoModelForImageTextToText.from_pretrained(Path(folder, "model"), output_loading_info=True)
        wrong = {key: info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]}
        if wrong:
            raise AssertionError(f"transformers does not load it whole: {wrong}")
        again, codec = checkpoint.load(Path(folder, "model"))
        examples = [encode(talk, codec) for talk in talks()]
        with torch.no_grad():
            ours = again.logits(again.hidden(collate(examples, codec.image_id)))
        expected = torch.cat([their_logits(theirs.eval(), example, codec) for example in examples])
        return relative(ours, expected)


for _name, (_vision, _language, _choices) in ROWS.items():
    row(f"logits, {_name}", against="transformers, float32, relative", bound=BOUND)(
        functools.partial(difference, _vision, _language, **_choices)
    )
