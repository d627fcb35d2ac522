"""Native checkpoints: transformers' own ``llava`` directory (``llava_next`` for tiles) plus ``llavakit.json``.

What those cannot hold is refused, or on demand saved in the same directory with ``model_type: llavakit``, which no
other program takes for its own.

Details that engines need (each was met by trying): classic tensor names (``vision_tower.vision_model.*``,
``language_model.model.*``), since vLLM and transformers 4 refuse or silently skip the new ones; ``rope_theta`` at the
top level too; ``PreTrainedTokenizerFast`` as tokenizer class; ``preprocessor_config.json`` beside
``processor_config.json``; a chat template that begins with BOS.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, write_json, writing
from llavakit.base.log import log
from llavakit.chat.render import with_bos
from llavakit.chat.template import JinjaTemplate, Template
from llavakit.model.build import from_hub, outline
from llavakit.model.configuration import llava_config, read_config
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.native import check_tiles
from llavakit.model.preprocessor import load_grids, load_square, preprocessor_config
from llavakit.model.shards import write_shards
from llavakit.model.towers import WRAPPED

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja")


def save(model: Llava, codec: Codec, path: str | Path, card: dict[str, Any] | None = None) -> None:
    """Writes the whole directory beside ``path`` and renames it there. ``card`` becomes ``llavakit.json``.

    A codec of tiles makes it a ``llava_next`` one, of a square a ``llava`` one. Raises :class:`BadRequest` where
    transformers has no form for it.
    """
    _check_tiles(model, codec)
    with writing(path) as temporary:
        temporary.mkdir()
        write_shards(_tensors(model), temporary)
        save_description(model, codec, temporary, card)


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
    model, codec = load_description(path, dtype, device)
    _load_tensors(model, path)
    _check_linear(model, path)
    return model.eval(), codec


def load_description(
    path: Path, dtype: torch.dtype, device: str, template: Template | None = None
) -> tuple[Llava, Codec]:
    """All of a native directory but the tensors: on the meta device the model takes no memory. ``template`` takes the
    place of its chat template.

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
    with torch.device(device):
        model = outline(config.vision_config, config.text_config, spec, load_square(path), dtype)
    if grids is not None:
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


def _check_linear(model: Llava, path: Path) -> None:
    """A linear connector runs its first layer alone, so the second must be the identity that it stands for."""
    connector: Any = model.multi_modal_projector
    if connector.kind == "linear":
        second = connector.linear_2
        eye = torch.eye(len(second.bias), dtype=second.weight.dtype, device=second.weight.device)
        if not torch.equal(second.weight, eye) or second.bias.any():
            raise BadRequest(f"{path}: its connector is two matrices without an activation, which is not LLaVA's")


def _check_tiles(model: Llava, codec: Codec) -> None:
    if codec.grids is None:
        if model.image_newline is not None:
            raise BadRequest("the model has a row end for tiles, and a checkpoint that sees one square would lose it")
        return
    if model.image_newline is None:
        raise BadRequest("pictures are seen as tiles, and the model has no row end; call its add_newline() first")
    check_tiles(model)
    if codec.square.mode == "pad":
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


def native_state(model: Llava) -> dict[str, torch.Tensor]:
    """Every tensor under its classic name in transformers' ``llava``."""
    wrapper = "vision_model." if model.vision_tower.config.model_type in WRAPPED else ""
    state = {f"vision_tower.{wrapper}{key}": value for key, value in model.vision_tower.whole_state().items()}
    state |= {f"multi_modal_projector.{k}": v for k, v in model.multi_modal_projector.state_dict().items()}
    if model.image_newline is not None:
        state["image_newline"] = state.pop("multi_modal_projector.image_newline")
    state |= {f"language_model.{k}": v for k, v in model.language_model.state_dict().items()}
    return state


def _generation_config(codec: Codec) -> dict[str, Any]:
    ids = {key: getattr(codec.tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**ids, "do_sample": False, "_from_model_config": False}


def _tensors(model: Llava) -> Iterator[tuple[str, torch.Tensor]]:
    """What is written: everything but a head that is the embeddings."""
    tied = bool(getattr(model.language_model.config, "tie_word_embeddings", False))
    for name, tensor in native_state(model).items():
        if not (tied and name == "language_model.lm_head.weight"):
            yield name, tensor


def _load_tensors(model: Llava, path: Path) -> None:
    """Fills every parameter, shard by shard, under classic or new names. Raises when one is missing or too many."""
    targets = {plain_name(name): tensor for name, tensor in native_state(model).items()}
    if getattr(model.language_model.config, "tie_word_embeddings", False):
        targets.pop("language_model.lm_head.weight", None)
    left = set(targets)
    for file in tensor_files(path):
        try:
            with safe_open(file, framework="pt") as tensors, torch.no_grad():
                for name in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
                    target = targets.get(plain_name(name))
                    if target is None:
                        if not name.endswith("position_ids"):
                            raise BadRequest(f"{file} holds {name!r}, which this model has no place for")
                        continue
                    value = tensors.get_tensor(name)
                    if value.shape != target.shape:
                        shapes = f"{tuple(value.shape)}, the configuration says {tuple(target.shape)}"
                        raise BadRequest(f"{file}: {name!r} is {shapes}")
                    target.copy_(value)
                    left.discard(plain_name(name))
        except SafetensorError as error:
            raise BadRequest(f"{file} is damaged: {error}") from None
    if left:
        raise BadRequest(f"{path} lacks {len(left)} of {len(targets)} tensors, e.g. {min(left)}")


def tensor_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint, complete by its index. Raises :class:`BadRequest` naming a missing one."""
    index = path / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    for name in names:
        if not (path / name).is_file():
            raise BadRequest(f"{path} lacks {name}; only safetensors are read")
    return [path / name for name in names]


def plain_name(name: str) -> str:
    """One name for a tensor, whatever transformers version wrote it."""
    if name.startswith("model.") or name == "lm_head.weight":
        # transformers 5 saves LlavaForConditionalGeneration as model.{vision_tower,...} and a top-level lm_head.
        name = name.removeprefix("model.")
        if name.startswith("language_model."):
            name = "language_model.model." + name.removeprefix("language_model.")
        if name == "lm_head.weight":
            name = "language_model.lm_head.weight"
    return name.replace("vision_tower.vision_model.", "vision_tower.").replace("vision_tower.model.", "vision_tower.")


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
