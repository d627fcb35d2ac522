"""Checkpoints of the original LLaVA, as haotian-liu/LLaVA saves and publishes them, found by what they hold.

Whole models (``.bin`` or safetensors, in shards or not), a connector alone (``mm_projector.bin``) and LoRA
(``adapter_model.*`` with ``non_lora_trainables.bin``), the last two beside their base model. The vision tower lies
inside when it was tuned; otherwise it is the published one that ``mm_vision_tower`` names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.conversation import IMAGE
from llavakit.chat.template import JinjaTemplate, Template, get_template
from llavakit.convert.checkpoint import EMBEDDINGS, HEAD, Checkpoint, Stream, resized
from llavakit.convert.lora import Lora
from llavakit.convert.names import to_native
from llavakit.convert.tensors import TensorFiles, read_all
from llavakit.image.anyres import Grid
from llavakit.image.square import Mode, Square
from llavakit.model.build import (
    ModelSpec,
    grow_tokenizer,
    load_tokenizer,
    normalisation,
    outline,
    vocabulary_size,
)
from llavakit.model.checkpoint import is_original, resolve
from llavakit.model.connector import NATIVE, ConnectorKind
from llavakit.model.encode import Codec
from llavakit.model.known import KNOWN, configuration
from llavakit.model.towers import vision_config

# model_type of the original -> of its language model, and the template it was trained with.
LANGUAGES = {
    "llava": ("llama", "vicuna_v1"),
    "llava_llama": ("llama", "vicuna_v1"),
    "llava_mistral": ("mistral", "mistral_instruct"),
}
_TOWER = "model.vision_tower.vision_tower."
_MODES: dict[str | None, Mode] = {"pad": "pad", "square": "crop", None: "crop", "anyres": "squash"}
_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")


class Original:
    """An original directory, opened. ``names`` of its tensors are the original's own, whichever file they lie in.

    ``base`` and ``vision`` name directories or hub ids, in place of those that the files name. Raises
    :class:`BadRequest` that says what is missing and how to give it.
    """

    def __init__(self, path: str | Path, base: str | None = None, vision: str | None = None) -> None:
        self.path = path = resolve(path, "*.bin")
        if not is_original(path):
            raise BadRequest(f"{path} holds no checkpoint of the original LLaVA: no mm_projector, no mm_ fields")
        if not (path / "config.json").is_file():
            raise BadRequest(f"{path} lacks config.json, which says what tower and connector these weights belong to")
        self.config: dict[str, Any] = read_json(path / "config.json")
        self.lora = Lora(path) if (path / "adapter_config.json").is_file() else None
        self.extra = self._extra()
        whole = self._is_whole()
        if base and whole:
            raise BadRequest(f"--base is for originals that are a part; {path} is a whole one")
        self.weights = TensorFiles.of(path if whole else self._base(base))
        self.vision: str = vision or self._field("mm_vision_tower")
        self.has_tower = any(name.startswith(_TOWER) for name in (*self.weights.where, *self.extra))

    def names(self) -> list[str]:
        return list(dict.fromkeys((*self.weights.where, *self.extra)))

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as stored, LoRA not applied. Raises KeyError when there is none."""
        return self.extra[name] if name in self.extra else self.weights[name]

    def embeddings(self) -> torch.Tensor:
        return self.tensor("model.embed_tokens.weight")

    def stream(self) -> Stream:
        """Every tensor once, LoRA merged, under its original name."""
        for name, tensor in self.weights:
            if name not in self.extra:
                yield name, self.lora.merged(name, tensor) if self.lora else tensor
        if self.lora:
            self.lora.finish()
        yield from self.extra.items()

    @property
    def connector(self) -> ConnectorKind:
        kind: str = self.config.get("mm_projector_type", "linear")
        if kind not in NATIVE:
            raise BadRequest(f"{self.path}: transformers' llava has no connector {kind!r}, only {' and '.join(NATIVE)}")
        return kind

    def _is_whole(self) -> bool:
        return self.lora is None and TensorFiles.has(self.path)

    def _base(self, base: str | None) -> Path:
        named = base or (self.lora.base if self.lora else self.config.get("_name_or_path"))
        what = "a LoRA" if self.lora else "a connector alone"
        if not named:
            raise BadRequest(f"{self.path} is {what}; name the language model that it belongs to with --base")
        try:
            return resolve(named, "*.bin")
        except BadRequest as error:
            raise BadRequest(f"{self.path} is {what} for {named!r}; name its directory with --base ({error})") from None

    def _extra(self) -> dict[str, torch.Tensor]:
        """Tensors that lie beside the weights and come before them."""
        if self.lora:
            file = self.path / "non_lora_trainables.bin"
            if not file.is_file():
                raise BadRequest(f"{self.path} is a LoRA without non_lora_trainables.bin, which holds the connector")
        else:
            file = self.path / "mm_projector.bin"
            if self._is_whole() or not file.is_file():
                return {}
        return {_bare(name): tensor for name, tensor in read_all(file).items()}

    def _field(self, name: str) -> Any:
        if name not in self.config:
            raise BadRequest(f"{self.path}/config.json lacks {name}")
        return self.config[name]

    def text_config(self, vocabulary: int) -> Any:
        """Configuration of the language model inside."""
        from transformers import AutoConfig

        kind = self._field("model_type")
        if kind not in LANGUAGES:
            raise BadRequest(f"{self.path}: no llava of transformers holds a {kind!r}; known: {', '.join(LANGUAGES)}")
        language = LANGUAGES[kind][0]
        known = {*AutoConfig.for_model(language).to_dict(), "rope_theta", "rope_scaling"} - {"dtype", "architectures"}
        values = {key: value for key, value in self.config.items() if key in known and key != "model_type"}
        return AutoConfig.for_model(language, **{**values, "vocab_size": vocabulary})

    def template(self, name: str | None) -> Template | JinjaTemplate:
        """What it was trained with: a connector alone with ``plain``, others with their family's."""
        alone = self.lora is None and not self._is_whole()
        template = get_template(name or ("plain" if alone else LANGUAGES[self._field("model_type")][1]))
        if self.config.get("mm_use_im_start_end"):
            return JinjaTemplate(_framed(template.jinja()))
        return template

    @property
    def tiled(self) -> bool:
        return bool(self.config.get("image_aspect_ratio") == "anyres")

    def grids(self, size: int) -> tuple[Grid, ...] | None:
        """Of LLaVA-1.6's tiles, in its own order of preference; None where pictures are squares."""
        if not self.tiled:
            return None
        merge, points = self._field("mm_patch_merge_type"), self._field("image_grid_pinpoints")
        if merge != "spatial_unpad":
            raise BadRequest(f"{self.path}: transformers' llava_next does not merge tiles as {merge!r}")
        if not all(isinstance(p, list) and not any(edge % size for edge in p) for p in points):
            raise BadRequest(f"{self.path}: image_grid_pinpoints {points!r} are not whole tiles of {size} pixels")
        # The original's are width and height, transformers' height and width.
        return tuple((height // size, width // size) for width, height in points)

    def square(self, size: int) -> Square:
        """How a picture, or the global view of a tiled one, becomes a square."""
        aspect = self.config.get("image_aspect_ratio")
        if aspect not in _MODES:
            raise BadRequest(f"{self.path}: image_aspect_ratio {aspect!r} is none of {', '.join(map(str, _MODES))}")
        how = Square(size=size, mode=_MODES[aspect])
        if self.vision in KNOWN:
            return how  # the published CLIP towers, whose mean and deviation are the default
        mean, std = normalisation(self.vision)
        return how.evolve(mean=mean, std=std)


def original(
    path: str | Path, base: str | None = None, vision: str | None = None, template: str | None = None
) -> Checkpoint:
    """An original checkpoint as a native one. ``template``: name of a chat template, in place of its family's."""
    source = Original(path, base, vision)
    own = any((source.path / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))
    files = source.path if own else source.weights.files[0].parent
    tokenizer = load_tokenizer(str(files))
    table = source.embeddings()
    # Rows that the tokenizer cannot name are dropped, as everywhere in llavakit: engines fail on them.
    vocabulary = min(vocabulary_size(tokenizer), len(table))
    grow_tokenizer(tokenizer)
    text, tower = source.text_config(vocabulary_size(tokenizer)), vision_config(configuration(source.vision))
    spec = ModelSpec(
        connector=source.connector,
        feature_layer=source._field("mm_vision_select_layer"),
        keep_cls=source._field("mm_vision_select_feature") == "cls_patch",
    )
    grids = source.grids(tower.image_size)
    with torch.device("meta"):
        model = outline(tower, text, spec, source.square(tower.image_size), table.dtype)
    if grids:
        model.add_newline()
    limit = text.max_position_embeddings
    codec = Codec(tokenizer, source.template(template), model.square, model.image_tokens, limit, grids)
    pieces = files / "tokenizer.model"
    return Checkpoint(
        model,
        codec,
        lambda: _native(source, vocabulary, text.vocab_size),
        vocabulary,
        {"original": _record(source, files)},
        pieces if pieces.is_file() else None,
    )


def _native(source: Original, keep: int, size: int) -> Stream:
    for name, tensor in source.stream():
        renamed = to_native(name, source.connector)
        if renamed is None:
            raise BadRequest(f"{source.path} holds {name!r}, which transformers' llava has no place for")
        yield renamed, resized(tensor, keep, size) if renamed in (EMBEDDINGS, HEAD) else tensor
    if source.connector == "linear":
        like = source.tensor("model.mm_projector.bias")
        yield "multi_modal_projector.linear_2.weight", torch.eye(len(like), dtype=like.dtype)
        yield "multi_modal_projector.linear_2.bias", torch.zeros_like(like)
    if not source.has_tower:
        yield from _tower(source.vision)


def _tower(vision: str) -> Stream:
    """A published tower's tensors; of a CLIP the half that sees."""
    files = TensorFiles.of(resolve(vision, "*.bin"))
    seeing = [name for name in files.where if name.startswith("vision_model.")]
    for name, tensor in files:
        if name in seeing or not seeing:
            yield f"vision_tower.{name}", tensor


def _bare(name: str) -> str:
    """A name in ``mm_projector.bin`` or ``non_lora_trainables.bin``, without what peft and trainers put before it."""
    name = name.removeprefix("base_model.")
    if name.startswith("mm_projector."):
        return f"model.{name}"
    return name.removeprefix("model.") if name.startswith(("model.model.", "model.lm_head.")) else name


def _framed(jinja: str) -> str:
    """A template whose pictures stand between the two tokens that the first LLaVA put around them."""
    frame = f"<im_start>{IMAGE}<im_end>"
    said = jinja.replace("macro content(", "macro said(", 1)
    macro, end, rest = said.partition("{%- endmacro -%}")
    content = "{%- macro content(m) -%}{{ said(m) | replace('" + IMAGE + "', '" + frame + "') }}{%- endmacro -%}\n"
    return macro + end + "\n" + content + rest


def _record(source: Original, files: Path) -> dict[str, Any]:
    """What the way back needs to write the same files again."""
    beside = {name: read_json(files / name) for name in _FILES if (files / name).is_file()}
    return {"config": source.config, "files": beside, "tower": source.has_tower}
