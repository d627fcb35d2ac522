"""Native checkpoints: transformers' own ``llava`` directory (``llava_next`` for tiles) plus ``llavakit.json``.

What those cannot hold is refused, or on demand saved in the same directory with ``model_type: llavakit``, which no
other program takes for its own.

Details that engines need (each was met by trying): classic tensor names (``vision_tower.vision_model.*``,
``language_model.model.*``), since vLLM and transformers 4 refuse or silently skip the new ones; ``rope_theta`` at the
top level too; ``PreTrainedTokenizerFast`` as tokenizer class; ``preprocessor_config.json`` beside
``processor_config.json``; a chat template that begins with BOS.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llavakit.base.dist import is_main, together
from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, write_json, writing
from llavakit.base.log import log
from llavakit.chat.render import with_bos
from llavakit.chat.template import JinjaTemplate, Template
from llavakit.model.build import from_hub, outline, weightless
from llavakit.model.configuration import llava_config, read_config
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.preprocessor import load_grids, load_square, preprocessor_config
from llavakit.model.shards import whole, write_shards
from llavakit.model.tensors import Tensors, fill, plain_name, tensor_files
from llavakit.model.towers import WRAPPED

HEAD = "language_model.lm_head.weight"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja")


def save(model: Llava, codec: Codec, path: str | Path, card: dict[str, Any] | None = None) -> None:
    """Writes the whole directory beside ``path`` and renames it there. ``card`` becomes ``llavakit.json``. Of a sharded
    model all ranks call this, and the first writes, one shard of the file in its memory at a time.

    A codec of tiles makes it a ``llava_next`` one, of a square a ``llava`` one. Raises :class:`BadRequest` where
    transformers has no form for it.
    """
    _check_tiles(model, codec)
    stream = _tensors(model)

    def write() -> None:
        try:
            if is_main():
                with writing(path) as temporary:
                    temporary.mkdir()
                    write_shards(stream, temporary)
                    save_description(model, codec, temporary, card)
        finally:
            for _ in stream:  # every rank takes part in gathering every tensor, also when the first cannot write
                pass

    together(write)


def copy(source: Path, path: Path, max_length: int, card: dict[str, Any]) -> None:
    """``source`` with another context length and card; no tensor is loaded."""
    model, codec = load_description(source, torch.float32, "meta")
    with writing(path) as temporary:
        temporary.mkdir()
        for name in ["model.safetensors.index.json", *(file.name for file in tensor_files(source))]:
            if (source / name).is_file():
                shutil.copyfile(source / name, temporary / name)
        save_description(model, replace(codec, max_length=max_length), temporary, card)


def save_description(model: Llava, codec: Codec, path: Path, card: dict[str, Any] | None = None) -> None:
    """Writes into ``path`` all of a native directory but the tensors. The model may be on the meta device."""
    write_json(path / "config.json", llava_config(model, codec))
    write_json(path / "generation_config.json", _generation_config(codec))
    _save_processor(model, codec, path)
    write_json(path / "llavakit.json", {"llavakit": 1, **(card or {})})


def load(path: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Llava, Codec]:
    """Loads a native ``llava`` or ``llava_next`` directory, ours or anybody's.

    Raises :class:`BadRequest` naming the file, or the tensors, that it lacks.
    """
    path = resolve(path)
    model, codec, tensors = open_checkpoint(path, dtype)
    fill(model, parameter_names(model), tensors, device)
    model.to(device)  # buffers
    check_linear(model)
    return model.eval(), codec


def open_checkpoint(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Llava, Codec, Tensors]:
    """What :func:`load` loads, with no tensor read yet: the model is to be filled. Raises as that does."""
    model, codec = load_description(path, dtype, None)
    return model, codec, open_tensors(model, path)


def parameter_names(model: Llava) -> dict[int, str]:
    """The native name of every parameter, by its ``id``; of a tied one the embeddings', for no file need hold the
    head's."""
    return {id(p): name for name, p in native_state(model, parameters=True).items() if name != HEAD or not _tied(model)}


def open_tensors(model: Llava, path: Path) -> Tensors:
    """The tensors of a native directory for ``model``, which may be on the meta device. Raises :class:`BadRequest`
    when one is missing or too many."""
    expected = {plain_name(name): tensor for name, tensor in native_state(model).items()}
    return Tensors(path, expected, frozenset({HEAD} if _tied(model) else ()))


def load_description(
    path: Path, dtype: torch.dtype, device: str | None, template: Template | None = None
) -> tuple[Llava, Codec]:
    """All of a native directory but the tensors: on the meta device the model takes no memory, and with ``device``
    None it takes none but is ready to be filled. ``template`` takes the place of its chat template.

    Raises :class:`BadRequest` naming the file that it lacks.
    """
    from transformers import AutoTokenizer

    if is_original(path):
        raise BadRequest(
            f"{path} is a checkpoint of the original LLaVA; make it a native one: llavakit convert {path} NEW_DIRECTORY"
        )
    others = {"preprocessor_config.json": (path / "processor_config.json").is_file(), "chat_template.jinja": template}
    for name in FILES:
        if not (path / name).is_file() and not others.get(name):
            raise BadRequest(f"{path} lacks {name}; a native llava checkpoint holds {', '.join(FILES)} and safetensors")
    config, spec = read_config(path)
    grids = load_grids(config, path)
    with weightless() if device is None else torch.device(device):
        model = outline(config.vision_config, config.text_config, spec, load_square(path), dtype)
    if grids is not None:
        with weightless() if device is None else contextlib.nullcontext():
            model.add_newline()
    tokenizer = from_hub(AutoTokenizer, str(path))
    spoken = template or JinjaTemplate(_spoken(path, tokenizer))
    limit = config.text_config.max_position_embeddings
    return model, Codec(tokenizer, spoken, model.square, model.image_tokens, limit, grids)


def _spoken(path: Path, tokenizer: Any) -> str:
    """The source of the chat template, which writes BOS where the model was taught to see one."""
    source = (path / "chat_template.jinja").read_text(encoding="utf-8")
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return with_bos(source) if begins else source


def check_linear(model: Llava) -> None:
    """A linear connector runs its first layer alone, so the second must be the identity that it stands for."""
    connector: Any = model.multi_modal_projector
    if connector.kind == "linear":
        second = connector.linear_2
        eye = torch.eye(len(second.bias), dtype=second.weight.dtype, device=second.weight.device)
        if not torch.equal(second.weight, eye) or second.bias.any():
            raise BadRequest("the checkpoint's connector is two matrices without an activation, which is not LLaVA's")


def _check_tiles(model: Llava, codec: Codec) -> None:
    if codec.grids is None:
        if model.image_newline is not None:
            raise BadRequest("the model has a row end for tiles, and a checkpoint that sees one square would lose it")
        return
    if model.image_newline is None:
        raise BadRequest("pictures are seen as tiles, and the model has no row end; call its add_newline() first")
    model.check_tiles()
    if codec.square.mode == "pad" and is_main():
        log.warning(
            "the global view is padded, as LLaVA-1.5-HD's is: transformers and vLLM load this checkpoint but squash "
            "that view (global_view=squash trains what they see)"
        )


def resolve(path: str | Path, *more: str) -> Path:
    """A local directory as it is; a hub id as the directory of its downloaded snapshot, with files of patterns
    ``more`` besides those of a native checkpoint."""
    if Path(path).is_dir():
        return Path(path)
    if Path(path).exists() or str(path).count("/") != 1 or str(path).startswith((".", "/", "~")):
        raise BadRequest(f"no checkpoint directory at {path}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", *more]
    try:
        return Path(snapshot_download(str(path), allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadRequest(f"no checkpoint directory at {path}, and the hub does not give it: {first}") from None


def is_original(path: Path) -> bool:
    """Whether a directory holds files of the original LLaVA, by what is in it."""
    if (path / "mm_projector.bin").is_file() or (path / "non_lora_trainables.bin").is_file():
        return True
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    return "mm_hidden_size" in config or "mm_vision_tower" in config


def native_state(model: Llava, parameters: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor under its classic name in transformers' ``llava``; ``parameters``: the model's own, not detached."""
    wrapper = "vision_model." if model.vision_tower.config.model_type in WRAPPED else ""
    state = {f"vision_tower.{wrapper}{key}": value for key, value in model.vision_tower.whole_state(parameters).items()}
    state |= {
        f"multi_modal_projector.{k}": v for k, v in model.multi_modal_projector.state_dict(keep_vars=parameters).items()
    }
    if model.image_newline is not None:
        state["image_newline"] = state.pop("multi_modal_projector.image_newline")
    state |= {f"language_model.{k}": v for k, v in model.language_model.state_dict(keep_vars=parameters).items()}
    return state


def _tied(model: Llava) -> bool:
    return bool(getattr(model.language_model.config, "tie_word_embeddings", False))


def _generation_config(codec: Codec) -> dict[str, Any]:
    ids = {key: getattr(codec.tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**ids, "do_sample": False, "_from_model_config": False}


def _tensors(model: Llava) -> Iterator[tuple[str, torch.Tensor]]:
    """What is written, each whole: everything but a head that is the embeddings."""
    for name, tensor in native_state(model).items():
        if not (_tied(model) and name == HEAD):
            yield name, whole(tensor)


def _save_processor(model: Llava, codec: Codec, path: Path) -> None:
    import transformers

    config = preprocessor_config(codec.square, codec.grids)
    write_json(path / "preprocessor_config.json", config)
    # By name: AutoImageProcessor wants torchvision in some versions, and gives another class where that is.
    seen = getattr(transformers, f"{config['image_processor_type']}Pil")
    tower = model.vision_tower
    tokenizer = codec.tokenizer
    tokenizer.chat_template = codec.template.jinja()
    # LLaVA's callers pad on the left; the length is the context's, or engines cut or refuse.
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = codec.max_length
    processor = (transformers.LlavaProcessor if codec.grids is None else transformers.LlavaNextProcessor)(
        image_processor=from_hub(seen, str(path)),
        tokenizer=tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy="full" if tower.keep_cls or not tower.has_cls else "default",
        num_additional_image_tokens=tower.specials,
        chat_template=codec.template.jinja(),
    )
    processor.save_pretrained(path)
    config = read_json(path / "tokenizer_config.json")
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    # A list here is refused by transformers 4; the tokens are special in tokenizer.json already.
    config.pop("extra_special_tokens", None)
    for key in ("backend", "is_local", "name_or_path", "processor_class", "local_files_only"):
        config.pop(key, None)
    write_json(path / "tokenizer_config.json", config)
