"""Build a Llava from parts: a vision tower and a language model, each a hub id or a local directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import nn

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.conversation import IMAGE
from llavakit.image.square import Square
from llavakit.model.connector import ConnectorKind, make_connector
from llavakit.model.llava import Llava
from llavakit.model.native import CHOOSE, Format, check_language, unheld
from llavakit.model.pieces import sentencepiece_tokenizer
from llavakit.model.quiet import quiet
from llavakit.model.towers import VisionTower, vision_config

PAD = "<pad>"


class ModelSpec(Config):
    """What a model is made of. ``vision`` and ``language``: hub ids or directories of transformers models; None where
    a recipe pretrains small ones first. The rest is as :class:`VisionTower` and the connector say."""

    vision: str | None = None
    language: str | None = None
    connector: ConnectorKind = "mlp2x_gelu"
    feature_layer: int | tuple[int, ...] = -2
    keep_cls: bool = False
    keep_registers: bool = True
    format: Format = "llava"
    """``llava``: saved as transformers' own. ``llavakit``: for what that cannot hold; no other program loads it."""

    @model_validator(mode="after")
    def _can_be_saved(self) -> ModelSpec:
        found = unheld(self.connector, self.keep_registers)
        if found and self.format == "llava":
            raise ValueError(f"transformers' llava has no place for {' and '.join(found)}: {CHOOSE}")
        return self


def build(spec: ModelSpec, seed: int = 0) -> tuple[Llava, Any]:
    """Loads both backbones and joins them by a fresh connector, float32. Returns the model and its tokenizer.

    The tokenizer gains ``<image>`` and, where it has none, a pad token; the embeddings grow to its exact size
    (vLLM fails on ids that the tokenizer lacks). Raises :class:`BadRequest` when a part cannot be loaded whole.
    """
    if spec.vision is None or spec.language is None:
        raise BadRequest("model.vision and model.language must name what the model is built from")
    vision, square = load_vision(spec.vision)
    language, tokenizer = load_language(spec.language)
    torch.manual_seed(seed)
    model = assemble(vision, language, spec, square)
    if spec.keep_cls and not model.vision_tower.has_cls:
        raise BadRequest(f"model.keep_cls: {spec.vision} has no CLS token to keep")
    return model, tokenizer


def assemble(vision: Any, language: Any, spec: ModelSpec, square: Square) -> Llava:
    """Joins two models of transformers by a fresh connector. Raises :class:`BadRequest` where they do not fit
    ``spec``."""
    check_language(language, spec.format)
    tower = VisionTower(vision, spec.feature_layer, spec.keep_cls, spec.keep_registers)
    connector = make_connector(tower.width, language.config.hidden_size, spec.connector)
    return Llava(tower, connector, language, square, spec.format)


def outline(vision: Any, language: Any, spec: ModelSpec, square: Square, dtype: torch.dtype = torch.float32) -> Llava:
    """The model that two configurations of transformers describe, its tensors not filled: for a checkpoint to fill,
    or, within ``torch.device("meta")``, to count."""
    from transformers import AutoModel, AutoModelForCausalLM

    tower = AutoModel.from_config(vision_config(vision), dtype=dtype)
    model = assemble(tower, AutoModelForCausalLM.from_config(language, dtype=dtype), spec, square)
    model.multi_modal_projector.to(dtype)
    return model


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Within the block new modules have their parameters on the meta device, but real buffers: such as rotary
    frequencies, which no checkpoint holds."""
    register = nn.Module.register_parameter

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            # A tied weight, which comes here twice, is meta by its second time and stays one object.
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = empty  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def load_vision(path: str) -> tuple[Any, Square]:
    """The vision half of a CLIP-like model, or a vision model, and its image size and normalisation."""
    from transformers import AutoConfig, AutoModel

    config = vision_config(from_hub(AutoConfig, path))
    model = _load_whole(AutoModel, path, config=config)
    mean, std = normalisation(path)
    return model, Square(size=config.image_size, mean=mean, std=std)


def normalisation(path: str) -> tuple[Any, Any]:
    """Mean and deviation of a tower's pixels, three numbers each. Read from its files: transformers' AutoImageProcessor
    wants torchvision in some versions. Raises :class:`BadRequest` where they do not say it."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if file := _found(path, name):
            config = read_json(file)
            config = config.get("image_processor", config)
            if config.get("image_mean") and config.get("image_std"):
                return tuple(config["image_mean"]), tuple(config["image_std"])
    raise BadRequest(
        f"{path!r} has no preprocessor_config.json with image_mean and image_std. Give a local directory or the id of "
        "a hub model you can reach."
    )


def load_language(path: str) -> tuple[Any, Any]:
    """A causal language model and its fast tokenizer, grown by the image and pad tokens."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path)
    model = _load_whole(AutoModelForCausalLM, path)
    grow_tokenizer(tokenizer)
    resize_vocabulary(model, vocabulary_size(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_tokenizer(path: str) -> Any:
    """A model's fast tokenizer; Vicuna's bare ``tokenizer.model`` with the ids that SentencePiece itself gives.

    Raises :class:`BadRequest` when there is none.
    """
    from transformers import AutoTokenizer

    pieces = _found(path, "tokenizer.model")
    if pieces and not _found(path, "tokenizer.json"):
        for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"):
            _found(path, name)  # of a hub's model: now it lies beside the pieces
        return sentencepiece_tokenizer(pieces)
    tokenizer = from_hub(AutoTokenizer, path)
    if not getattr(tokenizer, "is_fast", False):
        raise BadRequest(f"{path} has no fast tokenizer, and supervised spans need character offsets")
    return tokenizer


def _found(path: str, name: str) -> Path | None:
    """A file of a local directory or of a hub's model, if it has one (and the hub can be reached)."""
    from transformers.utils import cached_file

    found = cached_file(
        path,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def grow_tokenizer(tokenizer: Any) -> None:
    """Adds ``<image>`` and, where there is none, a pad token, behind all other tokens."""
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD})


def vocabulary_size(tokenizer: Any) -> int:
    """Rows that a tokenizer needs. Not its len(): it may skip ids."""
    return int(max(tokenizer.get_vocab().values())) + 1


def resize_vocabulary(model: Any, size: int) -> None:
    """Makes the embeddings and the head exactly ``size`` rows; new rows are the mean of the old ones."""
    old = model.get_input_embeddings().weight.shape[0]
    if old == size:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    if size > old:
        with torch.no_grad():
            for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
                table[old:] = table[:old].mean(0)


def from_hub(auto: Any, path: str) -> Any:
    """``auto.from_pretrained``; raises :class:`BadRequest` with one line when that cannot be had."""
    try:
        with quiet():
            return auto.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise BadRequest(_unloadable(path, error)) from None


def _load_whole(auto: Any, path: str, **kwargs: Any) -> Any:
    """from_pretrained that refuses a checkpoint which leaves tensors at random (transformers only warns)."""
    try:
        with quiet():
            model, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True, **kwargs)
    except (OSError, ValueError) as error:
        raise BadRequest(_unloadable(path, error)) from None
    missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
    if missing:
        raise BadRequest(f"{path} lacks {len(missing)} tensors of {type(model).__name__}, e.g. {missing[0]}")
    return model


def _unloadable(path: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0]
    return f"cannot load {path!r}: {first} Give a local directory or the id of a hub model you can reach."
