"""Weights in 8 and 4 bits: the model stays the model, its layers take the room that the bits promise."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.rows.models import talks
from llavakit.base.errors import BadRequest
from llavakit.chat.template import get_template
from llavakit.cli import main
from llavakit.data.collate import collate
from llavakit.engine.load import load
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint
from llavakit.model.build import ModelSpec, build
from llavakit.model.encode import Codec, encode
from llavakit.model.quantise import full, layer_linears, quantise
from tests.tiny import save_language, save_tower


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose widths are multiples of 32, which int4 needs."""
    folder = tmp_path_factory.mktemp("wide")
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    language = save_language("llama", folder / "language", **sizes)
    model, tokenizer = build(ModelSpec(vision=str(save_tower("clip", folder / "vision")), language=str(language)))
    codec = Codec(tokenizer, get_template("vicuna_v1"), model.square, model.image_tokens, 512)
    checkpoint.save(model, codec, folder / "model")
    return folder / "model"


def held_bytes(weight: Any) -> int:
    """Of a tensor that is made of others."""
    parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    return sum(part.numel() * part.element_size() for part in parts if torch.is_tensor(part))


@pytest.mark.parametrize(("bits", "room", "error"), [("int8", 1.1, 0.015), ("int4", 0.7, 0.12), ("nf4", 0.6, 0.15)])
def test_near_the_full_model_in_less_room(wide: Path, bits: Any, room: float, error: float) -> None:
    model, codec = checkpoint.load(wide, torch.bfloat16)
    batch = collate([encode(talk, codec) for talk in talks()], codec.image_id)
    with torch.no_grad():
        before = model.logits(model.hidden(batch)).float()
        quantise(model.language_model, bits, "cpu")
        after = model.logits(model.hidden(batch)).float()
    # Random layers magnify an error; each matrix by itself is what the bits promise.
    assert 0 < (after - before).norm() <= 20 * error * before.norm()
    exact = layer_linears(checkpoint.load(wide, torch.bfloat16)[0].language_model)
    linears = layer_linears(model.language_model)
    assert linears.keys() == exact.keys() and len(linears) == 2 * 7
    for name, linear in linears.items():
        assert held_bytes(linear.weight) <= room * linear.in_features * linear.out_features
        x = torch.randn(64, linear.in_features, generator=torch.Generator().manual_seed(0)).bfloat16()
        with torch.inference_mode():
            expected, found = exact[name](x).float(), linear(x).float()
        assert (found - expected).norm() <= error * expected.norm(), name
    head = model.language_model.get_output_embeddings()
    assert type(head.weight) is nn.Parameter, "the head stays as it is"


def test_nf4_holds_what_it_computes_with() -> None:
    torch.manual_seed(0)
    holder = nn.Module()
    holder.layers = nn.ModuleList([nn.Linear(128, 64)])
    before = holder.layers[0].weight.detach().clone()
    quantise(holder, "nf4", "cpu")
    linear: Any = holder.layers[0]
    x = torch.randn(5, 128)
    torch.testing.assert_close(full(linear)(x), linear(x))
    assert 0.05 < (full(linear).weight - before).norm() / before.norm() < 0.15


def test_from_python_and_the_command_line(wide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = load(wide, "cpu", quantize="int8").ask(None, "Is it a star?", Decoding(max_new_tokens=6))
    words = ["ask", str(wide), "Is it a star?", "--max-new-tokens", "6", "--quantize", "int8"]
    assert main(words) == 0
    out = capsys.readouterr()
    assert out.out == answer + "\n" and out.err == "", "nothing but the answer is printed"


def test_what_cannot_be_is_said(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadRequest, match=r"int4 takes weights in groups of 32, and model\.layers\..* has 48"):
        load(checkpoint, "cpu", quantize="int4")
    assert main(["ask", str(checkpoint), "Hi", "--quantize", "int3"]) == 2
    assert "invalid choice: 'int3'" in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchao" else find(name))
    with pytest.raises(BadRequest, match=r"need torchao: pip install 'llavakit\[quantize\]'"):
        load(checkpoint, "cpu", quantize="int8")
