"""Directories as the original LLaVA and the models it is built from save them: true formats, toy sizes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TEXT = [
    *(Path(__file__).parents[2] / "llavakit" / "chat" / "template.py").read_text(encoding="utf-8").splitlines(),
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.",
    "USER: What is in the picture? ASSISTANT: Two small red circles and 3 stars, caf\u00e9 \u4e2d\u6587.",
]
VOCABULARY = 500
WIDTH, DEPTH = 48, 2
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


def pieces_model(vocabulary: int = VOCABULARY) -> bytes:
    """A SentencePiece model trained with Llama's settings: BPE, bytes, digits apart, text taken as it is."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in TEXT if line.strip()] * 4),
        model_writer=out,
        vocab_size=vocabulary,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.99995,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


def write_tokenizer(path: Path, pieces: bytes) -> None:
    """The files that Vicuna has: no fast tokenizer among them."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.model").write_bytes(pieces)
    config = {"add_bos_token": True, "legacy": False, "model_max_length": 2048, "tokenizer_class": "LlamaTokenizer"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    )


def clip(path: Path, seed: int = 1) -> Path:
    """A CLIP of 28 pixels and 16 patches, as transformers 4 saved it: both halves, classic names."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(seed)
    vision = {**VISION, "image_size": 28, "patch_size": 7}
    text = {**VISION, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    path.mkdir(parents=True)
    model.config.save_pretrained(path)
    names = {k: v.contiguous() for k, v in model.state_dict().items()}
    assert "vision_model.embeddings.class_embedding" in names and "text_projection.weight" in names
    save_file(names, path / "model.safetensors", metadata={"format": "pt"})
    size = {"height": 28, "width": 28}
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size).save_pretrained(path)
    return path


def text_config(vocabulary: int = VOCABULARY, width: int = WIDTH, depth: int = DEPTH) -> dict[str, Any]:
    """A Llama's ``config.json`` of 2023."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 512,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": depth,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "vocab_size": vocabulary,
    }


def language_state(config: dict[str, Any], seed: int = 2) -> dict[str, torch.Tensor]:
    """Random weights under the names of a LlamaForCausalLM, head and all, none of them zero or one."""
    generator = torch.Generator().manual_seed(seed)
    width, middle, rows = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    groups = width * config["num_key_value_heads"] // config["num_attention_heads"]
    block = {
        "self_attn.q_proj": (width, width), "self_attn.k_proj": (groups, width), "self_attn.v_proj": (groups, width),
        "self_attn.o_proj": (width, width), "mlp.gate_proj": (middle, width), "mlp.up_proj": (middle, width),
        "mlp.down_proj": (width, middle), "input_layernorm": (width,), "post_attention_layernorm": (width,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, width)}
    for index in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in block.items()}
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (rows, width)}
    return {
        name: torch.randn(shape, generator=generator) * (0.1 if len(shape) == 2 else 0.3) + (len(shape) == 1)
        for name, shape in shapes.items()
    }


def projector_state(kind: str = "mlp2x_gelu", width: int = WIDTH, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = {"": VISION["hidden_size"]} if kind == "linear" else {"0.": VISION["hidden_size"], "2.": width}
    state = {}
    for number, inside in names.items():
        state[f"model.mm_projector.{number}weight"] = torch.randn(width, inside, generator=generator) * 0.2
        state[f"model.mm_projector.{number}bias"] = torch.randn(width, generator=generator) * 0.2
    return state


def tower_state(clip_path: Path, seed: int = 4) -> dict[str, torch.Tensor]:
    """A tuned tower: the published one, moved a little."""
    from safetensors.torch import load_file

    generator = torch.Generator().manual_seed(seed)
    return {
        f"model.vision_tower.vision_tower.{name}": tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(clip_path / "model.safetensors").items()
        if name.startswith("vision_model.") and tensor.is_floating_point()
    }


def llava_config(clip_path: Path | str, kind: str = "mlp2x_gelu", **changes: Any) -> dict[str, Any]:
    """``config.json`` of llava-v1.5, at toy sizes."""
    config = {
        **text_config(),
        "architectures": ["LlavaLlamaForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": VISION["hidden_size"],
        "mm_projector_type": kind,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(clip_path),
        "model_type": "llava_llama",
        "use_mm_proj": True,
    }
    return {**config, **changes}


def write_bins(path: Path, state: dict[str, torch.Tensor], shards: int = 3) -> None:
    """``pytorch_model-0000x-of-0000n.bin`` and their index."""
    names = list(state)
    index = {}
    for number in range(shards):
        part = names[number::shards]
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        torch.save({name: state[name] for name in part}, path / file)
        index |= dict.fromkeys(part, file)
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_safetensors(path: Path, state: dict[str, torch.Tensor], shards: int = 2) -> None:
    names = list(state)
    index = {}
    for number in range(shards):
        part, file = names[number::shards], f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: state[name] for name in part}, path / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def vicuna(path: Path, pieces: bytes) -> Path:
    """A base model: one ``.bin``, a tokenizer without a fast one."""
    write_tokenizer(path, pieces)
    (path / "config.json").write_text(json.dumps(text_config()))
    torch.save(language_state(text_config()), path / "pytorch_model.bin")
    return path


def write_config(path: Path, config: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))


def llava(path: Path, clip_path: Path, pieces: bytes, tiles: bool = False) -> Path:
    """llava-v1.5 as it is published: ``.bin`` shards, the tower elsewhere. With ``tiles`` llava-v1.6: safetensors,
    pinpoints of (width, height), a row end, a tuned tower."""
    state = language_state(text_config()) | projector_state()
    write_tokenizer(path, pieces)
    if not tiles:
        write_config(path, llava_config(clip_path))
        write_bins(path, state)
        return path
    points = [[28, 56], [56, 28], [56, 56], [84, 28]]
    merge = {"mm_patch_merge_type": "spatial_unpad", "unfreeze_mm_vision_tower": True}
    write_config(path, llava_config(clip_path, image_aspect_ratio="anyres", image_grid_pinpoints=points, **merge))
    write_safetensors(path, state | tower_state(clip_path) | {"model.image_newline": torch.linspace(-1, 1, WIDTH)})
    return path


def lora(path: Path, base: Path, clip_path: Path, rank: int = 4, alpha: int = 8) -> Path:
    """A LoRA directory of the original's ``finetune_lora.sh``: every linear layer of the language model."""
    generator = torch.Generator().manual_seed(5)
    write_config(path, llava_config(clip_path))
    adapter = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "fan_in_fan_out": False}
    (path / "adapter_config.json").write_text(json.dumps({**adapter, "base_model_name_or_path": str(base)}))
    pairs = {}
    for name, weight in language_state(text_config()).items():
        if "_proj" in name:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            pairs[f"{stem}.lora_A.weight"] = torch.randn(rank, weight.shape[1], generator=generator) * 0.1
            pairs[f"{stem}.lora_B.weight"] = torch.randn(weight.shape[0], rank, generator=generator) * 0.1
    torch.save(pairs, path / "adapter_model.bin")
    others = {f"base_model.model.{name}": tensor for name, tensor in projector_state().items()}
    torch.save(others, path / "non_lora_trainables.bin")
    return path
