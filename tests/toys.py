"""Tiny models of the true formats, made in a second: what tests and the parity script run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT = [
    "A small striped red circle at the top left and the word TAXI.",
    "A large solid blue star on the right. How many things are there? 3",
    "USER: What colour is the star? ASSISTANT: Blue. Yes No 1 2 3 4 5 [0.12, 0.30, 0.25, 0.44]",
]


def write_backbones(out: Path) -> Path:
    """Fills ``out`` with ``clip`` and ``language``: random models saved as transformers saves them."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, LlamaConfig, LlamaForCausalLM

    from llavakit.train.backbones_language import train_tokenizer

    tokenizer = train_tokenizer(TEXT * 20, 400)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    clip = CLIPModel(
        CLIPConfig(
            vision_config={**tower, "image_size": 28, "patch_size": 7},
            text_config={**tower, "vocab_size": len(tokenizer), **ids},
            projection_dim=16,
        )
    )
    clip.save_pretrained(out / "clip")
    size = {"height": 28, "width": 28}
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size).save_pretrained(out / "clip")
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,  # or every greedy answer is one repeated token
            **ids,
        )
    )
    llama.save_pretrained(out / "language")
    tokenizer.save_pretrained(out / "language")
    return out


def write_siglip(out: Path) -> None:
    """A tower without CLS, in ``out/siglip``."""
    import torch
    from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(**tower, image_size=28, patch_size=7)).save_pretrained(out / "siglip")
    SiglipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(out / "siglip")


def build_toy(backbones: Path, vision: str = "clip") -> tuple[Any, Any]:
    """A fresh (model, codec) of those backbones, template vicuna_v1, context 512."""
    from llavakit.chat.template import get_template
    from llavakit.model.build import ModelSpec, build
    from llavakit.model.encode import Codec

    model, tokenizer = build(ModelSpec(vision=str(backbones / vision), language=str(backbones / "language")))
    return model, Codec(tokenizer, get_template("vicuna_v1"), model.square, model.vision_tower.tokens, 512)
