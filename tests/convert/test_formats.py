"""Original checkpoints of every shape in, native ones out, and back: the same tensors and the same logits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llavakit.base.errors import BadRequest
from llavakit.convert.run import convert
from llavakit.convert.tensors import TensorFiles
from llavakit.model import checkpoint as checkpoints
from tests.convert import originals

Maker = Callable[[Path, Path, bytes], dict[str, torch.Tensor]]
"""Writes an original directory (at a path, with a CLIP, with a SentencePiece model); returns its tensors."""


def _dressed(path: Path, clip: Path, pieces: bytes, kind: str = "mlp2x_gelu", **changes: object) -> None:
    originals.write_config(path, originals.llava_config(clip, kind, **changes))
    originals.write_tokenizer(path, pieces)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    files = TensorFiles.of(path)
    return {name: files[name] for name in files.where}


def bins(path: Path, clip: Path, pieces: bytes) -> dict[str, torch.Tensor]:
    return _tensors(originals.llava(path, clip, pieces))


def tiles(path: Path, clip: Path, pieces: bytes) -> dict[str, torch.Tensor]:
    return _tensors(originals.llava(path, clip, pieces, tiles=True))


def safetensors_with_tuned_tower(path: Path, clip: Path, pieces: bytes) -> dict[str, torch.Tensor]:
    _dressed(path, clip, pieces, unfreeze_mm_vision_tower=True)
    state = originals.language_state(originals.text_config()) | originals.projector_state()
    state |= originals.tower_state(clip)
    originals.write_safetensors(path, state)
    return state


def first_llava(path: Path, clip: Path, pieces: bytes) -> dict[str, torch.Tensor]:
    """v1: one matrix, model_type ``llava``, no mm_projector_type, three tokens of its own, one old-format file."""
    rows = originals.VOCABULARY + 3
    _dressed(path, clip, pieces, model_type="llava", vocab_size=rows, mm_use_im_start_end=True, image_aspect_ratio=None)
    config = json.loads((path / "config.json").read_text())
    config.pop("mm_projector_type")
    (path / "config.json").write_text(json.dumps(config))
    added = {"<im_patch>": rows - 3, "<im_start>": rows - 2, "<im_end>": rows - 1}
    (path / "added_tokens.json").write_text(json.dumps(added))
    state = originals.language_state(originals.text_config(rows)) | originals.projector_state("linear")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
    torch.save(state, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    state.pop("model.layers.0.self_attn.rotary_emb.inv_freq")
    return state


def half(path: Path, clip: Path, pieces: bytes) -> dict[str, torch.Tensor]:
    """float16, as the published weights are, and all hidden features with CLS."""
    _dressed(path, clip, pieces, torch_dtype="float16", mm_vision_select_feature="cls_patch", mm_vision_select_layer=2)
    state = originals.language_state(originals.text_config()) | originals.projector_state()
    state = {name: tensor.half() for name, tensor in state.items()}
    torch.save(state, path / "pytorch_model.bin")
    return state


@pytest.mark.parametrize("make", [bins, safetensors_with_tuned_tower, first_llava, half, tiles])
def test_there_and_back_is_bit_equal(make: Maker, tmp_path: Path, clip: Path, pieces: bytes) -> None:
    source, native, back = tmp_path / "source", tmp_path / "native", tmp_path / "back"
    state = make(source, clip, pieces)
    certificate = convert(source, native)
    assert certificate and certificate["difference"] <= 1e-5
    assert json.loads((native / "parity.json").read_text()) == certificate
    model, codec = checkpoints.load(native)
    table = model.language_model.get_input_embeddings().weight
    words = state["model.embed_tokens.weight"].float()
    assert len(table) == len(codec.tokenizer) == len(words) + 2
    torch.testing.assert_close(table[-1], words.mean(0), atol=1e-3, rtol=0)
    convert(native, back, "original")
    again = TensorFiles.of(back)
    assert again.where.keys() == state.keys()
    for name, tensor in state.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor), name
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model"):
        before, after = (source / name).read_bytes(), (back / name).read_bytes()
        assert after == before or json.loads(after) == json.loads(before), name
    assert convert(back, tmp_path / "native2")
    first, second = load_file(native / "model.safetensors"), load_file(tmp_path / "native2" / "model.safetensors")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_inside_decides_not_what_it_is_called(tmp_path: Path, clip: Path, pieces: bytes) -> None:
    path = tmp_path / "llava-next-lora-qwen-13b"
    bins(path, clip, pieces)
    convert(path, tmp_path / "native")
    model, codec = checkpoints.load(tmp_path / "native")
    assert (model.vision_tower.layer, model.vision_tower.keep_cls) == (-2, False)
    assert model.multi_modal_projector.kind == "mlp2x_gelu" and codec.square.mode == "pad"
    assert "USER: " in codec.template.jinja()


def test_a_connector_alone_takes_its_base(tmp_path: Path, clip: Path, vicuna: Path) -> None:
    path = tmp_path / "pretrain"
    originals.write_config(path, originals.llava_config(clip))
    torch.save(originals.projector_state(), path / "mm_projector.bin")
    with pytest.raises(BadRequest, match=r"is a connector alone; name the language model .* with --base"):
        convert(path, tmp_path / "native")
    convert(path, tmp_path / "native", base=str(vicuna))
    tensors = load_file(tmp_path / "native" / "model.safetensors")
    state = originals.language_state(originals.text_config())
    assert torch.equal(tensors["language_model.lm_head.weight"][:500], state["lm_head.weight"])
    bias = originals.projector_state()["model.mm_projector.2.bias"]
    assert torch.equal(tensors["multi_modal_projector.linear_2.bias"], bias)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_lora_is_merged(tmp_path: Path, clip: Path, vicuna: Path, form: str) -> None:
    path = originals.lora(tmp_path / "lora", vicuna, clip)
    pairs = torch.load(path / "adapter_model.bin", weights_only=True)
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(pairs, path / "adapter_model.safetensors")
        (path / "adapter_model.bin").unlink()
    certificate = convert(path, tmp_path / "native")
    assert certificate and certificate["difference"] <= 1e-5, "against W x + s B (A x), never merged"
    tensors = load_file(tmp_path / "native" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (pairs[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    weight = originals.language_state(originals.text_config())[f"{name}.weight"]
    torch.testing.assert_close(tensors[f"language_model.{name}.weight"], weight + 2 * b @ a)
    assert not torch.allclose(tensors[f"language_model.{name}.weight"], weight, atol=1e-2)


def test_an_adapter_that_cannot_be_merged_is_refused(tmp_path: Path, clip: Path, vicuna: Path) -> None:
    path = originals.lora(tmp_path / "lora", vicuna, clip)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(BadRequest, match="use_dora=True cannot be merged"):
        convert(path, tmp_path / "native")
    (path / "adapter_config.json").write_text(json.dumps(config))
    pairs = torch.load(path / "adapter_model.bin", weights_only=True)
    torch.save({name.replace("layers.1.", "layers.7."): t for name, t in pairs.items()}, path / "adapter_model.bin")
    with pytest.raises(BadRequest, match=r"base model lacks 7 weights of the adapter, e\.g\. model\.layers\.7"):
        convert(path, tmp_path / "native")
    assert not (tmp_path / "native").exists()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


def _pickle(path: Path) -> None:
    torch.save({"model.mm_projector.0.weight": Evil()}, path / "pytorch_model-00002-of-00003.bin")


def _torn(path: Path) -> None:
    file = path / "pytorch_model-00001-of-00003.bin"
    file.write_bytes(file.read_bytes()[:3000])


def _short(path: Path) -> None:
    index = json.loads((path / "pytorch_model.bin.index.json").read_text())["weight_map"]
    file = path / index["lm_head.weight"]
    state = torch.load(file, weights_only=True)
    torch.save({name: t for name, t in state.items() if name != "lm_head.weight"}, file)


def _config(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_pickle, r"00002-of-00003\.bin is refused: it is damaged, or holds more than tensors"),
        (_torn, r"00001-of-00003\.bin is (damaged|refused)"),
        (_short, r"lacks 1 tensors, e\.g\. language_model\.lm_head\.weight"),
        (lambda path: (path / "pytorch_model-00003-of-00003.bin").unlink(), "lacks pytorch_model-00003-of-00003.bin"),
        (lambda path: (path / "config.json").unlink(), "no file at .*config.json"),
        (_config(mm_projector_type="mlp3x_gelu"), "has no connector 'mlp3x_gelu', only linear and mlp2x_gelu"),
        (_config(model_type="llava_mpt"), "holds a 'llava_mpt'"),
        (_config(hidden_size=96), r"is \(\d+, 48\), the configuration says \(\d+, 96\)"),
        (_config(mm_vision_tower="/no/such/tower"), "/no/such/tower"),
    ],
)
def test_a_damaged_source_is_named_and_leaves_nothing(
    tmp_path: Path, llava: Path, damage: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(llava, source)
    damage(source)
    with pytest.raises(BadRequest, match=message):
        convert(source, tmp_path / "out" / "native")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert "never run" not in capsys.readouterr().out


def test_an_existing_directory_is_not_overwritten(tmp_path: Path, llava: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").write_text("all my work")
    with pytest.raises(BadRequest, match="exists already"):
        convert(llava, tmp_path / "there")
    assert (tmp_path / "there" / "thesis.tex").read_text() == "all my work"


def test_a_model_trained_here_goes_to_the_original(checkpoint: Path, tmp_path: Path, clip: Path) -> None:
    with pytest.raises(BadRequest, match="say with --vision"):
        convert(checkpoint, tmp_path / "original", "original")
    certificate = convert(checkpoint, tmp_path / "original", "original", vision=str(clip))
    assert certificate and certificate["difference"] <= 1e-5
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    assert (config["model_type"], config["mm_projector_type"]) == ("llava_llama", "mlp2x_gelu")
    assert config["unfreeze_mm_vision_tower"] and config["mm_vision_tower"] == str(clip)
    assert "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight" in TensorFiles.of(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "again")
    before, after = (load_file(path / "model.safetensors") for path in (checkpoint, tmp_path / "again"))
    assert before.keys() == after.keys()
    added = {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - added)
    size = config["vocab_size"]
    assert all(torch.equal(before[name][:size], after[name][:size]) for name in added)


def test_an_original_directory_is_told_apart_when_it_is_asked(llava: Path) -> None:
    with pytest.raises(BadRequest, match=f"make it a native one: llavakit convert {llava} NEW_DIRECTORY"):
        checkpoints.load(llava)


def test_a_converted_model_answers(tmp_path: Path, llava: Path) -> None:
    from llavakit import load
    from llavakit.engine.sample import Decoding

    convert(llava, tmp_path / "native")
    picture = Image.new("RGB", (50, 30), (200, 30, 30))
    assert load(tmp_path / "native").ask(picture, "What is it?", Decoding(max_new_tokens=4))
