"""Layers compiled by torch.compile, without their attention, compute what they computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llavakit.base.errors import BadRequest
from llavakit.model.lean import Recompute, arrange_layers, check_compiled, packed_states


@pytest.mark.parametrize("recompute", ["none", "layers"])
def test_loss_and_gradients_are_those_of_plain_layers(recompute: Recompute) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    model: Any = LlamaForCausalLM(config).train()
    for segments in ([5, 9], [3, 7, 20]):
        x = torch.randn(1, sum(segments), 32)
        positions = torch.cat([torch.arange(length) for length in segments])
        predict = torch.arange(0, sum(segments), 3)
        found = []
        for compiled in (False, True):
            arrange_layers(model, recompute, compiled)
            model.zero_grad()
            states = packed_states(model, positions, segments, predict, inputs_embeds=x)
            states.square().sum().backward()
            found.append([states, *(p.grad for p in model.parameters() if p.grad is not None)])
        for plain, compiled_one in zip(*found, strict=True):
            torch.testing.assert_close(compiled_one, plain, rtol=1e-4, atol=1e-5)


def test_one_pair_of_halves_serves_all_layers_and_lengths() -> None:
    """A graph for layers before attention, one for the last there, and as many after it; not one a layer or step."""
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4
    )
    model: Any = LlamaForCausalLM(config).train()
    arrange_layers(model, "none", True)
    for segments in ([5, 9], [3, 7, 20], [31], [4, 4, 4, 4]):
        positions = torch.cat([torch.arange(length) for length in segments])
        x = torch.randn(1, sum(segments), 32, requires_grad=True)
        packed_states(model, positions, segments, torch.tensor([1, 3]), inputs_embeds=x).sum().backward()
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 4


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BadRequest, match=r"no C\+\+ compiler"):
        check_compiled(nn.Module())


def test_layers_that_are_not_known_are_refused() -> None:
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    model.base_model.layers = model.base_model.h
    with pytest.raises(BadRequest, match="GPT2Block"):
        check_compiled(model)
