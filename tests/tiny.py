"""Tiny random models of every family that a LLaVA is built from, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = [
    "A small striped red circle at the top left and the word TAXI.",
    "A large solid blue star on the right. How many things are there? 3",
    "USER: What colour is the star? ASSISTANT: Blue. Yes No 1 2 3 4 5 [0.12, 0.30, 0.25, 0.44]",
]
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
LANGUAGE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # or every greedy answer is one repeated token
}
SIDE = {"image_size": 28, "patch_size": 7}

# Family -> the class of its model type in transformers, and what differs from the sizes above.
TOWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip_vision_model", {}),
    "siglip": ("siglip_vision_model", {}),
    "dinov2": ("dinov2", {"mlp_ratio": 2}),
    "dinov2_registers": ("dinov2_with_registers", {"mlp_ratio": 2, "num_register_tokens": 3}),
    "dinov3": ("dinov3_vit", {"num_register_tokens": 4}),
}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
# Phi-4-mini turns three quarters of a head, by factors that depend on the length of the text.
PHI4_ROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75, "factor": 8.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [1.5] * 6, "original_max_position_embeddings": 64,
}  # fmt: skip
LANGUAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama3": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "phi4": ("phi3", {"tie_word_embeddings": True, "hidden_size": 64, "rope_parameters": PHI4_ROPE}),
    "mistral": ("mistral", {"sliding_window": 20}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "phi3": ("phi3", {"sliding_window": 24}),
    "gemma": ("gemma", {"head_dim": 12}),
    "gemma3": ("gemma3_text", {"head_dim": 12, "sliding_window": 20, "sliding_window_pattern": 2}),
    "gemma2": ("gemma2", {"head_dim": 12, "sliding_window": 20, "query_pre_attn_scalar": 12}),
    "phi": ("phi", {}),
}


def save_tower(family: str, out: Path) -> Path:
    """A random tower of 28-pixel pictures and 7-pixel patches, with its image processor."""
    from transformers import AutoConfig, AutoModel, CLIPImageProcessorPil

    kind, more = TOWERS[family]
    torch.manual_seed(1)
    AutoModel.from_config(AutoConfig.for_model(kind, **VISION, **SIDE, **more)).save_pretrained(out)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    if family == "siglip":
        processor.image_mean = processor.image_std = [0.5, 0.5, 0.5]
    processor.save_pretrained(out)
    return out


def save_language(family: str, out: Path, bos: bool = True, **sizes: int) -> Path:
    """A random language model and its tokenizer; without ``bos``, one that has neither BOS nor pad, as Qwen's."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from llavakit.train.backbones_language import train_tokenizer

    kind, more = LANGUAGES[family]
    tokenizer = train_tokenizer(TEXT * 20, 400)
    if not bos:
        tokenizer.bos_token = tokenizer.pad_token = None
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(2)
    config = AutoConfig.for_model(kind, **{**LANGUAGE, "vocab_size": len(tokenizer) + 7, **ids, **more, **sizes})
    AutoModelForCausalLM.from_config(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
