"""Decoders of many families: those built like Llama's run on our own pass, the others say why not and run the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from llavakit.engine.decoder import Decoder, fits
from llavakit.engine.engine import _decoder
from llavakit.engine.linear import Blocks, Linear, Packer, Packing, Panels, has_blocks, packing
from llavakit.engine.plain import Plain
from llavakit.model import flash
from tests import compiler

SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN = {
    "llama": {},
    "llama grouped, wide heads, yarn": {
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 64,
        },
    },
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
}
OTHERS = {
    "mistral": ({"sliding_window": 8}, "sliding window"),
    "phi3": ({}, "no self_attn.q_proj"),
    "gemma": ({"head_dim": 16}, "variance_epsilon"),
    "gemma2": ({"head_dim": 16, "sliding_window": 8}, "sliding window"),
    "gpt_neox": ({}, "self_attn|no "),
}


def language(name: str, more: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split()[0], **SMALL, **more)
    return AutoModelForCausalLM.from_config(config).eval()


@torch.inference_mode()
def check(model: Any, decoder: Any) -> None:
    """Rows with two shared parts, one and none; a step each; rows moved, dropped, doubled; a row's own part shared."""
    ids = torch.randint(3, 300, (3, 40), generator=torch.Generator().manual_seed(1))

    def theirs(*parts: torch.Tensor) -> torch.Tensor:
        return model(input_ids=torch.cat(parts)[None], past_key_values=DynamicCache(), use_cache=True).logits[0, -1]

    one, two, three = ids
    first = decoder.share((), decoder.embed(one[:20]))
    second = decoder.share((first,), decoder.embed(one[20:30]))
    other = decoder.share((), decoder.embed(two[:7]))
    rows = decoder.rows()
    own = [decoder.embed(part) for part in (one[30:33], two[7:9], three[:5])]
    got = [*decoder.admit(rows, [(first, second), (other,), ()], own)]
    got += [*decoder.step(rows, torch.stack([one[33], two[9], three[5]]))]
    rows.keep([2, 1, 0])
    rows.keep([0, 2, 2])
    got += [*decoder.step(rows, torch.stack([three[6], one[34], one[35]]))]
    tail = rows.own(1)
    again = decoder.rows()
    got += [
        *decoder.admit(
            again, [(first.first(12),), (first, second, tail)], [decoder.embed(two[:3]), decoder.embed(two[:4])]
        )
    ]
    wanted = [
        theirs(one[:33]),
        theirs(two[:9]),
        theirs(three[:5]),
        theirs(one[:34]),
        theirs(two[:10]),
        theirs(three[:6]),
        theirs(three[:7]),
        theirs(one[:35]),
        theirs(one[:34], one[35:36]),
        theirs(one[:12], two[:3]),
        theirs(one[:35], two[:4]),
    ]
    for ours, reference in zip(got, wanted, strict=True):
        assert float((ours - reference).abs().max() / reference.abs().max()) < 1e-5


def packings(weight: torch.Tensor, width: int) -> dict[str, Packing | None]:
    """Every way of laying out matrices that this machine has; ours wherever there is a compiler."""
    ways: dict[str, Packing | None] = {"torch": None}
    with_kernel = packing(weight, width)
    if with_kernel is not None:
        ways["own" if isinstance(with_kernel(weight, None), Panels) else "oneDNN"] = with_kernel
    if has_blocks(weight):
        ways["oneDNN"] = Blocks
    if compiler.there_is_one():
        # In bfloat16 where the processor has the instructions, as in training.
        assert ("own" in ways) == (weight.dtype == torch.float32 or flash.known(torch.empty(1, 1, 16).to(weight)))
    return ways


@pytest.mark.parametrize("way", ["torch", "oneDNN", "own"])
@pytest.mark.parametrize("name", OWN)
def test_families_of_our_own_pass(name: str, way: str) -> None:
    model = language(name, OWN[name])
    assert fits(model) == ""
    ways = packings(model.lm_head.weight, model.model.layers[0].self_attn.head_dim)
    if way not in ways:
        pytest.skip("this machine has no such kernels")
    decoder = Decoder(model, ways[way])
    assert (decoder.native is not None) == (way == "own")
    check(model, decoder)


@pytest.mark.parametrize("other", ["wider layers", "norms of another kind", "weights of another type"])
def test_what_the_step_in_one_call_does_not_know_is_left_to_the_pass(other: str) -> None:
    model = language("qwen3", OWN["qwen3"])
    layer = model.model.layers[1]
    if other == "wider layers":
        mlp = type(layer.mlp)(AutoConfig.for_model("qwen3", **SMALL | {"intermediate_size": 160}))
        layer.mlp = mlp.eval()
    elif other == "norms of another kind":

        class Shifted(type(layer.input_layernorm)):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) + 1

        layer.self_attn.q_norm = layer.self_attn.k_norm = Shifted(16)
    else:
        model.model.norm.double()
    decoder = Decoder(model, packings(model.lm_head.weight, 16).get("own"))
    assert decoder.native is None
    if other != "weights of another type":
        check(model, decoder)


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_go_through_transformers_and_say_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    more, why = OTHERS[name]
    model = language(name, more)
    log = logging.getLogger("llavakit")
    log.addHandler(caplog.handler)
    decoder = _decoder(model)
    log.removeHandler(caplog.handler)
    assert isinstance(decoder, Plain)
    (message,) = caplog.messages
    assert "transformers' own cache" in message and any(part in message for part in why.split("|"))
    check(model, decoder)


def test_the_same_structure_with_other_numbers_is_found_out() -> None:
    model = language("llama", {})
    for block in model.model.layers:
        block.mlp.act_fn = nn.Tanh()
    assert fits(model) == "", "any activation will do"
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: output * 1.1)
    assert "come out differently" in fits(model)


def test_a_decoder_with_quantised_or_adapted_layers_calls_them() -> None:
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    plain, adapted, x = nn.Linear(8, 4), Adapted(8, 6), torch.randn(3, 8)
    with torch.inference_mode():
        torch.testing.assert_close(Linear(plain, adapted, pack=Blocks)(x), torch.cat([plain(x), adapted(x)], 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 5, 300])
@pytest.mark.parametrize("way", ["oneDNN", "own"])
def test_packed_matrices_compute_the_same(dtype: torch.dtype, tokens: int, way: str) -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(48, 32).to(dtype), nn.Linear(48, 19, bias=False).to(dtype)]
    pack = packings(parts[0].weight, 16).get(way)
    if pack is None:
        pytest.skip("this machine has no such kernels")
    x, other = torch.randn(tokens, 48, dtype=dtype), torch.randn(tokens, 51, dtype=dtype)
    with torch.inference_mode():
        wanted = torch.cat([part.float()(x.float()) for part in parts], 1)
        for part in parts:
            part.to(dtype)
        linear = Linear(*parts, pack=pack)
        bound = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        for ours, theirs in [
            (linear(x), wanted),
            (linear.silu(x), nn.functional.silu(wanted)),
            (linear.plus(x, other), wanted + other.float()),
            (linear.times(x, other), wanted * other.float()),
        ]:
            torch.testing.assert_close(ours.float(), theirs, **bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_our_products_of_a_token_do_not_depend_on_the_others(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(2200, 40).to(dtype)  # more inputs than are summed at a time
    pack = packings(layer.weight, 16).get("own")
    if pack is None:
        pytest.skip("this machine has no such kernels")
    x = torch.randn(150, 2201, dtype=dtype)[:, :2200]  # rows of an odd length, of which pairs are read
    with torch.inference_mode():
        linear = Linear(layer, pack=pack)
        together = linear(x)
        torch.testing.assert_close(together, layer(x))
        for some in (slice(1), slice(5), slice(7, 20), slice(140, 149)):
            assert torch.equal(linear(x[some]), together[some])
        with pytest.raises(TypeError, match="float64"):
            linear(x.double())


@pytest.mark.parametrize("way", ["oneDNN", "own"])
def test_a_tower_is_packed_while_it_sees_and_trains_on_as_it_was(way: str) -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 32, bias=False))
    pack = packings(tower[0].weight, 16).get(way)
    if pack is None:
        pytest.skip("this machine has no such kernels")
    x = torch.randn(2, 3, 48)
    packed = Packer(pack, tower)
    with torch.inference_mode():
        before = tower(x)
        with packed:
            torch.testing.assert_close(tower(x), before)
            tower[0].weight += 1  # what was packed stays
            torch.testing.assert_close(tower(x), before)
        assert not torch.allclose(tower(x), before)
    tower(x).sum().backward()
    assert tower[0].weight.grad is not None and tower[2].weight.grad is not None
