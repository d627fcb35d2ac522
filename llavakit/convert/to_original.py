"""Writes a checkpoint as the original LLaVA saves one, for the original's own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import write_json
from llavakit.convert.checkpoint import EMBEDDINGS, HEAD, Checkpoint, Stream
from llavakit.convert.names import to_original
from llavakit.convert.original import LANGUAGES
from llavakit.model.configuration import llava_config
from llavakit.model.encode import Codec
from llavakit.model.shards import SHARD_BYTES, write_shards

_KINDS = {language: kind for kind, (language, _) in LANGUAGES.items()}  # llama -> llava_llama, not the older llava
_CLASSES = {"llama": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM"}
_TOWER = "vision_tower."
_SECOND = "multi_modal_projector.linear_2."


def write_original(
    checkpoint: Checkpoint, directory: Path, vision: str | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes config, tokenizer and safetensors shards. The rows of ``<image>`` and pad go; so does a tower that lay
    outside when the checkpoint was converted. ``vision``: the tower that the original's code is to build.

    Raises :class:`BadRequest` for a language model that the original has no class for.
    """
    record = checkpoint.card.get("original", {})
    write_json(directory / "config.json", original_config(checkpoint, vision))
    write_shards(_tensors(checkpoint, record.get("tower", True)), directory, shard_bytes)
    _write_tokenizer(checkpoint, directory, record.get("files", {}))


def original_config(checkpoint: Checkpoint, vision: str | None = None) -> dict[str, Any]:
    """``config.json``: as it was before it was converted, or made from the native one."""
    record = checkpoint.card.get("original")
    if record:
        return {**record["config"], **({"mm_vision_tower": vision} if vision else {})}
    model = checkpoint.model
    language = model.language_model.config.model_type
    if model.form != "llava" or len(model.vision_tower.chosen) > 1:
        raise BadRequest("the original LLaVA has connectors and one feature layer of transformers' llava only")
    if language not in _KINDS:
        raise BadRequest(f"the original LLaVA has no class for a {language!r} model, only for {', '.join(_KINDS)}")
    tower, kind = model.vision_tower, model.multi_modal_projector.kind
    if vision is None:
        raise BadRequest("say with --vision which tower the original's code is to build, e.g. the hub id of a CLIP")
    native = llava_config(model, checkpoint.codec)
    text = {key: value for key, value in native["text_config"].items() if key != "rope_parameters"}
    return {
        **text,
        "model_type": _KINDS[language],
        "architectures": [_CLASSES[language]],
        "torch_dtype": text.pop("dtype"),
        "vocab_size": checkpoint.vocabulary,
        "mm_vision_tower": vision,
        # Without it the original's code reads the published tower over the tensors that lie here.
        "unfreeze_mm_vision_tower": True,
        "mm_hidden_size": tower.config.hidden_size,
        "mm_projector_type": kind,
        "mm_vision_select_layer": tower.layer,
        "mm_vision_select_feature": "cls_patch" if tower.keep_cls else "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        **_seeing(checkpoint.codec),
    }


def _seeing(codec: Codec) -> dict[str, Any]:
    size, mode = codec.square.size, codec.square.mode
    if codec.grids:
        if mode != "squash":
            raise BadRequest(f"the original LLaVA squashes the global view of its tiles; this model's is {mode}")
        points = [[columns * size, rows * size] for rows, columns in codec.grids]
        return {
            "image_aspect_ratio": "anyres",
            "image_grid_pinpoints": points,
            "mm_patch_merge_type": "spatial_unpad",
        }
    if mode == "squash":
        raise BadRequest("the original LLaVA pads or crops a picture to a square; this model's is squashed")
    return {"image_aspect_ratio": "pad" if mode == "pad" else "square"}


def _tensors(checkpoint: Checkpoint, tower: bool) -> Stream:
    kind = checkpoint.model.multi_modal_projector.kind
    for name, tensor in checkpoint.tensors():
        if name in (EMBEDDINGS, HEAD):
            tensor = tensor[: checkpoint.vocabulary]
        renamed = to_original(name, kind)
        if renamed is None:
            _check_identity(name, tensor)
        elif tower or not name.startswith(_TOWER):
            yield renamed, tensor


def _check_identity(name: str, tensor: torch.Tensor) -> None:
    plain = torch.eye(len(tensor)) if tensor.dim() == 2 else torch.zeros(len(tensor))
    if not name.startswith(_SECOND) or not torch.equal(tensor.float(), plain):
        raise BadRequest(f"the original LLaVA has no place for {name!r}")


def _write_tokenizer(checkpoint: Checkpoint, directory: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        write_json(directory / name, content)
    if checkpoint.pieces:
        shutil.copy(checkpoint.pieces, directory / "tokenizer.model")
        return
    checkpoint.codec.tokenizer.save_pretrained(directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < checkpoint.vocabulary]
    write_json(path, content)
