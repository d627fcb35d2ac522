"""``config.json`` of a native checkpoint, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.model.build import ModelSpec
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.preprocessor import pinpoints

ACTS = {"mlp2x_gelu": "gelu", "linear": "linear"}
"""Connectors of transformers' ``llava``, and the ``projector_hidden_act`` that each is there."""


def llava_config(model: Llava, codec: Codec) -> dict[str, Any]:
    """``config.json``: transformers' LlavaConfig or LlavaNextConfig, with what older readers look for beside it."""
    from transformers import LlavaConfig, LlavaNextConfig

    tower, language = model.vision_tower, model.language_model
    kind: Any = LlavaConfig
    more: dict[str, Any] = {"architectures": ["LlavaForConditionalGeneration"]}
    if codec.grids is not None:
        kind, more = LlavaNextConfig, {"architectures": ["LlavaNextForConditionalGeneration"]}
        more["image_grid_pinpoints"] = pinpoints(codec.grids, codec.square.size)
    config = kind(
        vision_config=tower.config.to_dict(),
        text_config=language.config.to_dict(),
        image_token_index=codec.image_id,
        image_seq_length=model.image_tokens,
        projector_hidden_act=ACTS.get(model.multi_modal_projector.kind, "gelu"),
        vision_feature_select_strategy="full" if tower.keep_cls or not tower.has_cls else "default",
        vision_feature_layer=tower.layer if isinstance(tower.layer, int) else list(tower.layer),
        tie_word_embeddings=bool(getattr(language.config, "tie_word_embeddings", False)),
        **more,
    ).to_dict()
    text = config["text_config"]
    text["architectures"] = [type(language).__name__]
    rope = text.get("rope_parameters") or {}
    if "rope_theta" in rope:
        text["rope_theta"] = rope["rope_theta"]
    for part in (config, text, config["vision_config"]):
        part.pop("_name_or_path", None)
        part.pop("transformers_version", None)
        part["dtype"] = str(model.dtype).removeprefix("torch.")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        text[key] = getattr(codec.tokenizer, key)
    if model.form == "llavakit":
        # Not by the name of a model that others know: they would load it, and leave out what they have no place for.
        own = {"connector": model.multi_modal_projector.kind, "keep_registers": tower.keep_registers}
        config |= {"model_type": model.form, "architectures": ["LlavakitModel"], "llavakit": own}
    return config


def read_config(path: Path) -> tuple[Any, ModelSpec]:
    """``config.json`` as transformers' LlavaConfig or LlavaNextConfig, and how its parts are put together.

    Raises :class:`BadRequest` for another kind of model, or a connector that is not LLaVA's.
    """
    from transformers import LlavaConfig, LlavaNextConfig

    raw = read_json(path / "config.json")
    form = raw.get("model_type")
    if form not in ("llava", "llava_next", "llavakit"):
        raise BadRequest(f"{path} holds a {form!r} model, not 'llava' or 'llava_next'")
    own = raw.pop("llavakit", {})
    kind: Any = LlavaNextConfig if form == "llava_next" else LlavaConfig
    config = kind.from_dict({**raw, "model_type": kind.model_type})
    kinds = {act: kind for kind, act in ACTS.items()}
    if config.projector_hidden_act not in kinds or not config.multimodal_projector_bias:
        raise BadRequest(f"{path}: its connector is not LLaVA's (biases, and gelu or linear between its two layers)")
    layer = config.vision_feature_layer
    spec = {
        "connector": kinds[config.projector_hidden_act],
        "feature_layer": layer if isinstance(layer, int) else tuple(layer),
        "keep_cls": config.vision_feature_select_strategy == "full",
        "format": "llavakit" if form == "llavakit" else "llava",
        **own,
    }
    return config, ModelSpec.parse(spec, where=str(path / "config.json"))
