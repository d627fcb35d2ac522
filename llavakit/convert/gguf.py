"""GGUF files for llama.cpp: the language model in one, tower and connector in another (``mmproj``).

Written as llama.cpp's own converter lays them out, tensor by tensor. Of the tower only the layers that are used are
written, and block count and feature layer are both their number: that avoids llama.cpp's issue 25817 (one layer
short). Its issue 25814 (CLS joined behind the patches instead of before them) cannot be avoided from here; the files
are in the right order, and :func:`write_gguf` warns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from llavakit.base.errors import BadRequest
from llavakit.base.log import log
from llavakit.convert.checkpoint import Checkpoint
from llavakit.convert.vocabulary import add_vocabulary

FileType = Literal["f32", "f16", "bf16", "q8_0"]

# A language model's type -> llama.cpp's architecture.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
TOWERS = {"clip_vision_model", "siglip_vision_model"}
_TEXT, _VISION, _CONNECTOR = "language_model.", "vision_tower.", "multi_modal_projector."
_MATRICES = {"multi_modal_projector.linear_1": "mm.0", "multi_modal_projector.linear_2": "mm.2"}
Convert = Callable[[torch.Tensor], torch.Tensor]


def write_gguf(checkpoint: Checkpoint, directory: Path, kind: FileType = "f16") -> None:
    """Writes ``language-KIND.gguf`` and ``mmproj-KIND.gguf`` (for q8_0 ``mmproj-f16.gguf``) into ``directory``.

    Norms, biases and positions stay float32. Raises :class:`BadRequest` for what llama.cpp has no form for.
    """
    gguf = _package()
    if (why := fault(checkpoint)) is not None:
        raise BadRequest(why)
    language, tower = checkpoint.model.language_model.config, checkpoint.model.vision_tower
    seen: FileType = "f16" if kind == "q8_0" else kind
    arch = ARCHITECTURES[language.model_type]
    writer = gguf.GGUFWriter(directory / f"language-{kind}.gguf", arch)
    _describe_language(gguf, writer, language, checkpoint, kind)
    factors = {"rope_freqs.weight": _slowed(language)} if language.rope_parameters["rope_type"] == "llama3" else {}
    _write(gguf, writer, checkpoint, kind, _language_name(gguf, arch, language), factors)
    writer = gguf.GGUFWriter(directory / f"mmproj-{seen}.gguf", "clip")
    _describe_tower(gguf, writer, checkpoint, seen)
    _write(gguf, writer, checkpoint, seen, _vision_name(gguf, tower))
    if tower.has_cls:
        log.warning(
            "the files are right, but llama.cpp's reading of towers with a CLS token is not (its issue 25814: image "
            "features shift by one patch); towers without one, such as SigLIP, are not affected"
        )


def fault(checkpoint: Checkpoint) -> str | None:
    """Why llama.cpp has no form for a checkpoint; None where it has one."""
    language, tower = checkpoint.model.language_model.config, checkpoint.model.vision_tower
    if language.model_type not in ARCHITECTURES:
        return f"no GGUF form of a {language.model_type!r} is known here, only of {', '.join(ARCHITECTURES)}"
    one_square = not tower.keep_cls and not checkpoint.codec.grids and len(tower.chosen) == 1
    if tower.config.model_type not in TOWERS or not one_square:
        return "only a CLIP or SigLIP tower that gives one layer's patches of a square has a GGUF form here"
    if checkpoint.model.multi_modal_projector.kind != "mlp2x_gelu":
        return "llama.cpp's llava has only the connector mlp2x_gelu"
    rope = (getattr(language, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ("default", "linear", "llama3"):
        return f"no GGUF form of rotary embeddings of type {rope!r} is known here"
    return None


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise BadRequest("GGUF files need the package gguf: pip install 'llavakit[gguf]'") from None
    return gguf


Name = Callable[[str], tuple[str, Convert | None] | None]


def _language_name(gguf: Any, arch: str, config: Any) -> Name:
    """llama.cpp's name of a native tensor, and what is done to it; None for tensors of the other file."""
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    # Its llama turns neighbours where transformers turns halves, so rows of q and k change places.
    turned = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads} if arch == "llama" else {}

    def name(native: str) -> tuple[str, Convert | None] | None:
        if not native.startswith(_TEXT):
            return None
        plain = native.removeprefix(_TEXT)
        found = names.get_name(plain, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise BadRequest(f"llama.cpp's {arch} has no place for {plain!r}")
        heads = turned.get(plain.split(".")[-2])
        return str(found), None if heads is None else lambda tensor: neighbours(tensor, heads)

    return name


def neighbours(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows ``[heads * d, ...]`` of which each head's two halves are interleaved."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _slowed(config: Any) -> torch.Tensor:
    """By how much Llama 3 slows each pair's turning, ``float[d / 2]``: llama.cpp takes the factors, ready-made."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    slow, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width = 2 * len(slow)
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    return plain / slow


def _vision_name(gguf: Any, tower: Any) -> Name:
    depth = len(tower.layers)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, depth)
    wanted = {f"{_VISION}vision_model.{key}" for key in tower.whole_state()}
    unused = {f".layers.{depth + index}." for index in range(len(tower.unused))}

    def name(native: str) -> tuple[str, Convert | None] | None:
        module, _, suffix = native.rpartition(".")
        if module in _MATRICES:
            return f"{_MATRICES[module]}.{suffix}", None
        left_out = ("post_layernorm." in native, ".head." in native, any(layer in native for layer in unused))
        if native not in wanted or any(left_out):
            return None
        found = names.get_name(native, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise BadRequest(f"llama.cpp's clip has no place for {native!r}")
        return str(found), None

    return name


def _write(
    gguf: Any,
    writer: Any,
    checkpoint: Checkpoint,
    kind: FileType,
    name: Name,
    more: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Tensors one at a time: first their names and sizes, then what is in them. ``more``: float32 ones of llama.cpp's
    own, by their names there."""
    kinds = gguf.GGMLQuantizationType
    plans = []
    for own, tensor in (more or {}).items():
        writer.add_tensor_info(own, tuple(tensor.shape), np.dtype(np.float32), 4 * tensor.numel(), kinds.F32)
    for native, tensor in checkpoint.tensors():
        named = name(native)
        if named is None:
            continue
        to = kinds[_stored(named[0], tensor, kind).upper()]
        block, size = gguf.GGML_QUANT_SIZES[to]
        if tensor.shape[-1] % block:
            raise BadRequest(f"{native} has rows of {tensor.shape[-1]}, and q8_0 takes multiples of {block}")
        plans.append((named[0], to))
        dtype = {"F32": np.float32, "F16": np.float16}.get(to.name, np.uint8)
        shape = tuple(tensor.shape)
        if dtype is np.uint8:
            shape = (*shape[:-1], shape[-1] // block * size)
        writer.add_tensor_info(named[0], shape, np.dtype(dtype), tensor.numel() // block * size, to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in (more or {}).values():
        writer.write_tensor_data(tensor.numpy())
    planned: Iterator[tuple[str, Any]] = iter(plans)
    for native, tensor in checkpoint.tensors():
        named = name(native)
        if named is not None:
            _, to = next(planned)
            values = (named[1](tensor) if named[1] else tensor).float().contiguous().numpy()
            writer.write_tensor_data(gguf.quantize(values, to))
    writer.close()


def _stored(name: str, tensor: torch.Tensor, kind: FileType) -> FileType:
    if tensor.dim() == 1 or name == "v.position_embd.weight":
        return "f32"
    if name == "v.patch_embd.weight" and kind != "f16":
        return "f32"  # llama.cpp convolves with these two kinds only
    return kind


def _describe_language(gguf: Any, writer: Any, config: Any, checkpoint: Checkpoint, kind: FileType) -> None:
    rope = config.rope_parameters
    writer.add_file_type(gguf.LlamaFileType[{"f32": "ALL_F32"}.get(kind, f"MOSTLY_{kind.upper()}")])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type", "default") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    add_vocabulary(gguf, writer, checkpoint.codec.tokenizer)
    writer.add_chat_template(checkpoint.codec.template.jinja())


def _describe_tower(gguf: Any, writer: Any, checkpoint: Checkpoint, kind: FileType) -> None:
    tower, square = checkpoint.model.vision_tower, checkpoint.codec.square
    config = tower.config
    if square.mode != "pad":
        log.warning(f"llama.cpp pads a picture to a square; this one's are made square by {square.mode!r}")
    writer.add_file_type(gguf.LlamaFileType[{"f32": "ALL_F32"}.get(kind, f"MOSTLY_{kind.upper()}")])
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", config.hidden_act != "quick_gelu")
    writer.add_uint32("clip.vision.image_size", config.image_size)
    writer.add_uint32("clip.vision.patch_size", config.patch_size)
    writer.add_uint32("clip.vision.embedding_length", config.hidden_size)
    writer.add_uint32("clip.vision.feed_forward_length", config.intermediate_size)
    writer.add_uint32("clip.vision.projection_dim", checkpoint.model.language_model.config.hidden_size)
    writer.add_uint32("clip.vision.block_count", len(tower.layers))
    writer.add_uint32("clip.vision.attention.head_count", config.num_attention_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", config.layer_norm_eps)
    writer.add_array("clip.vision.image_mean", list(square.mean))
    writer.add_array("clip.vision.image_std", list(square.std))
    writer.add_array("clip.vision.feature_layer", tower.chosen)
