"""GGUF files, read back: tensors, settings, vocabulary; and where llama.cpp is at hand, its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.rows.models import made
from llavakit.base.errors import BadRequest
from llavakit.convert.run import convert
from llavakit.model import checkpoint as checkpoints
from tests.convert import originals

gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")

LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
TOWER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
EXACT = {"f32": 0.0, "f16": 5e-4, "bf16": 4e-3, "q8_0": 8e-3}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors in float32 and the settings of a file."""
    reader = gguf.GGUFReader(path)
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        tensors[tensor.name] = torch.from_numpy(np.array(values, dtype=np.float32)).reshape(*tensor.shape[::-1])
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


def turned_back(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's neighbours as transformers' halves: row 2i + j of a head becomes row j * d/2 + i."""
    heads_of = rows.view(heads, -1, *rows.shape[1:])
    return torch.cat([torch.cat([head[0::2], head[1::2]]) for head in heads_of])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, clip: Path, pieces: bytes) -> Path:
    """A native checkpoint of SentencePiece whose rows q8_0 can hold."""
    path = tmp_path_factory.mktemp("wide")
    text = originals.text_config(width=64)
    originals.write_config(path / "original", originals.llava_config(clip) | text | {"model_type": "llava_llama"})
    originals.write_tokenizer(path / "original", pieces)
    originals.write_bins(
        path / "original", originals.language_state(text) | originals.projector_state(width=64), shards=1
    )
    convert(path / "original", path / "native")
    return path / "native"


@pytest.mark.parametrize("kind", list(EXACT))
def test_every_tensor_is_there(wide: Path, tmp_path: Path, kind: str) -> None:
    convert(wide, tmp_path / "out", "gguf", kind=kind)  # type: ignore[arg-type]
    native = load_file(wide / "model.safetensors")
    seen = "f16" if kind == "q8_0" else kind
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"language-{kind}.gguf", f"mmproj-{seen}.gguf"}
    language, _ = read(tmp_path / "out" / f"language-{kind}.gguf")
    expected = {
        "token_embd.weight": native["language_model.model.embed_tokens.weight"],
        "output_norm.weight": native["language_model.model.norm.weight"],
        "output.weight": native["language_model.lm_head.weight"],
    }
    for number in range(originals.DEPTH):
        for theirs, ours in LAYERS.items():
            expected[f"blk.{number}.{theirs}.weight"] = native[f"language_model.model.layers.{number}.{ours}.weight"]
            for name, heads in (("attn_q", 4), ("attn_k", 2)):
                if theirs == name:
                    key = f"blk.{number}.{name}.weight"
                    language[key] = turned_back(language[key], heads)
    assert language.keys() == expected.keys()
    for name, tensor in expected.items():
        bound = 0 if tensor.dim() == 1 else EXACT[kind] * float(tensor.abs().max())
        assert float((language[name] - tensor).abs().max()) <= bound, name


def test_tower_and_connector(wide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(wide, tmp_path / "out", "gguf", kind="f32")
    assert "issue 25814" in capfd.readouterr().err
    tensors, settings = read(tmp_path / "out" / "mmproj-f32.gguf")
    native, prefix = load_file(wide / "model.safetensors"), "vision_tower.vision_model."
    expected = {
        "v.class_embd": native[f"{prefix}embeddings.class_embedding"],
        "v.position_embd.weight": native[f"{prefix}embeddings.position_embedding.weight"],
        "v.patch_embd.weight": native[f"{prefix}embeddings.patch_embedding.weight"],
        "v.pre_ln.weight": native[f"{prefix}pre_layrnorm.weight"],
        "v.pre_ln.bias": native[f"{prefix}pre_layrnorm.bias"],
    }
    for theirs, ours in (("0", "1"), ("2", "2")):
        for part in ("weight", "bias"):
            expected[f"mm.{theirs}.{part}"] = native[f"multi_modal_projector.linear_{ours}.{part}"]
    for number in range(2):  # of three layers the last is never run
        for theirs, ours in TOWER.items():
            for part in ("weight", "bias"):
                expected[f"v.blk.{number}.{theirs}.{part}"] = native[f"{prefix}encoder.layers.{number}.{ours}.{part}"]
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    assert settings["clip.vision.block_count"] == 2 and settings["clip.vision.feature_layer"] == [2]
    assert (settings["clip.vision.image_size"], settings["clip.vision.patch_size"]) == (28, 7)
    assert settings["clip.projector_type"] == "mlp" and settings["clip.vision.projection_dim"] == 64
    assert settings["clip.use_gelu"] is False, "CLIP's is the quick one"


def test_sentencepiece_vocabulary(wide: Path, tmp_path: Path, pieces: bytes) -> None:
    from sentencepiece import SentencePieceProcessor

    convert(wide, tmp_path / "out", "gguf", kind="f32")
    _, settings = read(tmp_path / "out" / "language-f32.gguf")
    theirs = SentencePieceProcessor(model_proto=pieces)
    size = len(theirs)
    tokens, kinds = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.token_type"]
    scores = settings["tokenizer.ggml.scores"]
    assert tokens == [*map(theirs.id_to_piece, range(size)), "<image>", "<pad>"]
    kind = gguf.TokenType
    for number in range(size):
        is_kind = {kind.UNKNOWN: theirs.is_unknown, kind.CONTROL: theirs.is_control, kind.BYTE: theirs.is_byte}
        assert kinds[number] == next((name for name, test in is_kind.items() if test(number)), kind.NORMAL)
    assert kinds[size:] == [kind.CONTROL, kind.CONTROL]
    made = [n for n in range(size) if kinds[n] == kind.NORMAL and len(tokens[n]) > 1]
    assert sorted(made, key=scores.__getitem__) == sorted(made, key=theirs.get_score), "the order of joining"
    assert settings["tokenizer.ggml.model"] == "llama" and settings["tokenizer.ggml.add_space_prefix"] is True
    assert settings["tokenizer.ggml.bos_token_id"] == 1 and settings["tokenizer.ggml.add_bos_token"] is True
    assert settings["tokenizer.ggml.padding_token_id"] == size + 1
    assert settings["tokenizer.chat_template"] == checkpoints.load(wide)[1].template.jinja()
    assert settings["llama.attention.head_count_kv"] == 2 and settings["llama.rope.dimension_count"] == 16
    assert settings["llama.rope.freq_base"] == 10000 and settings["llama.context_length"] == 512


def test_byte_level_vocabulary(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "out", "gguf", kind="f32")
    _, settings = read(tmp_path / "out" / "language-f32.gguf")
    tokenizer = checkpoints.load(checkpoint)[1].tokenizer
    assert settings["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert (settings["tokenizer.ggml.model"], settings["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert settings["tokenizer.ggml.add_bos_token"] is False, "the chat template writes it"
    merges = [tuple(pair.split(" ")) for pair in settings["tokenizer.ggml.merges"]]
    assert len(merges) > 50 and all("".join(pair) in tokenizer.get_vocab() for pair in merges)


def test_llama_3_turns_slowly(tmp_path: Path) -> None:
    """Its rotary positions: fast pairs as they are, slow ones eight times slower, one in between."""
    model, codec = made("siglip", "llama3", tmp_path)
    checkpoints.save(model, codec, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "out", "gguf", kind="f16")
    tensors, settings = read(tmp_path / "out" / "language-f16.gguf")
    factors = tensors["rope_freqs.weight"]
    assert settings["llama.rope.dimension_count"] == 12 and settings["llama.rope.freq_base"] == 5e5
    assert factors[0] == 1 and 1 < factors[1] < 8 and torch.allclose(factors[2:], torch.tensor(8.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"mm_projector_type": "linear"}, "only the connector mlp2x_gelu"), ({}, "rows of 48, and q8_0 takes multiples")],
)
def test_what_llama_cpp_cannot_hold_is_said(
    tmp_path: Path, clip: Path, pieces: bytes, changes: dict[str, str], message: str
) -> None:
    kind = changes.get("mm_projector_type", "mlp2x_gelu")
    originals.write_config(tmp_path / "source", originals.llava_config(clip, kind))
    originals.write_tokenizer(tmp_path / "source", pieces)
    state = originals.language_state(originals.text_config()) | originals.projector_state(kind)
    torch.save(state, tmp_path / "source" / "pytorch_model.bin")
    with pytest.raises(BadRequest, match=message):
        convert(tmp_path / "source", tmp_path / "out", "gguf", kind="q8_0")
    assert not (tmp_path / "out").exists()
