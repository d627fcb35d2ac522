"""Configurations of published backbones, so that a plan needs neither weights nor a hub.

Facts of the models' own ``config.json``; what is left out is transformers' default for the type.
"""

from __future__ import annotations

from typing import Any

_CLIP_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
_LLAMA = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}
_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}

KNOWN: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {**_CLIP_L, "image_size": 336},
    "openai/clip-vit-large-patch14": {**_CLIP_L, "image_size": 224},
    "lmsys/vicuna-7b-v1.5": {**_LLAMA, **_7B},
    "lmsys/vicuna-13b-v1.5": {**_LLAMA, **_13B},
    "lmsys/vicuna-7b-v1.3": {**_LLAMA, **_7B, "max_position_embeddings": 2048},
    "lmsys/vicuna-13b-v1.3": {**_LLAMA, **_13B, "max_position_embeddings": 2048},
    "google/siglip2-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
    },
}


def configuration(name: str) -> Any:
    """A backbone's configuration: from the table above, a local directory, or the hub.

    Raises :class:`~llavakit.base.errors.BadRequest` when none of them has it.
    """
    from transformers import AutoConfig

    from llavakit.model.build import from_hub

    if name in KNOWN:
        values = dict(KNOWN[name])
        return AutoConfig.for_model(values.pop("model_type"), **values)
    return from_hub(AutoConfig, name)
