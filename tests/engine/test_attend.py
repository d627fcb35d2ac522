"""Decoding's attention, by our own kernel and by torch: both what the formula says."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llavakit.engine.attend import Shared
from llavakit.engine.block import turned
from llavakit.engine.decoder import Decoder
from llavakit.engine.rows import OneEach, Rows
from llavakit.model import flash
from tests import compiler

LAYERS = 2


@pytest.mark.parametrize(
    ("width", "repeat", "dtype"),
    [(64, 1, torch.float32), (64, 2, torch.bfloat16), (8, 3, torch.float32), (20, 1, torch.bfloat16)],
)
@pytest.mark.parametrize("native", [True, False])
def test_what_is_attended_is_what_the_formula_says(
    width: int, repeat: int, dtype: torch.dtype, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native and not compiler.there_is_one():
        pytest.skip("there is no compiler")
    torch.manual_seed(0)
    heads, scale = 3, 2 * width**-0.5
    parts = [Shared(*torch.randn(2, LAYERS, heads, n, width).to(dtype)) for n in (150, 40, 17)]
    chains = [(parts[0], parts[1]), (parts[0].first(100),), (), (parts[0], parts[2]), (parts[0], parts[1])]
    rows = Rows(LAYERS, heads, width, dtype, torch.device("cpu"))
    assert (rows.kernel is not None) or not native
    if not native:
        rows.kernel = None
    rows.add(chains, [5, 70, 1, 3, 5])
    rows.keys.normal_()
    rows.values.normal_()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for first in (0, 2):
        view = OneEach(rows, first)
        assert (view.native is not None) == native
        joined = torch.randn(len(rows) - first, heads * repeat + 1, width).to(dtype)
        q = joined[:, : heads * repeat]
        k, v = torch.randn(2, len(q), heads, width).to(dtype)
        for layer in range(LAYERS):
            view.store(layer, k, v)
            out = view.attend(layer, q, scale).flatten(1, 2).float()
            for row, chain in enumerate(chains[first:]):
                count = rows.lengths[first + row]
                assert torch.equal(rows.keys[layer, first + row, :, count - 1], k[row])
                own = (store[layer, first + row, :, :count] for store in (rows.keys, rows.values))
                seen = [(part.keys[layer], part.values[layer]) for part in chain] + [tuple(own)]
                keys, values = (
                    torch.cat(side, 1).float().repeat_interleave(repeat, 0) for side in zip(*seen, strict=True)
                )
                scores = (q[row].float()[:, None] @ keys.transpose(1, 2)) * scale
                wanted = (scores.softmax(-1) @ values)[:, 0]
                bound = 2e-6 if dtype == torch.float32 else 3e-2
                torch.testing.assert_close(out[row], wanted, atol=bound, rtol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_turned_and_stored_in_one_call_is_what_torch_turns_and_stores(dtype: torch.dtype) -> None:
    if not compiler.there_is_one():
        pytest.skip("there is no compiler")
    torch.manual_seed(0)
    heads, repeat, width = 2, 2, 16
    shared = Shared(*torch.randn(2, LAYERS, heads, 70, width).to(dtype))
    rows = Rows(LAYERS, heads, width, dtype, torch.device("cpu"))
    rows.add([(shared,), (), (shared,)], [4, 9, 4])
    joined = torch.randn(4, heads * (repeat + 2), width).to(dtype)  # the last is padding
    cos, sin = torch.randn(2, 3, 1, width).to(dtype)
    view = OneEach(rows, 0)
    assert view.native is not None
    out = view.native.turned(1, joined, cos, sin, 0.3)
    assert out.shape == (4, heads, repeat, width) and not out[3].any()
    stored = rows.keys.clone(), rows.values.clone()
    q, k, v = joined[:3].split([heads * repeat, heads, heads], 1)
    view.store(1, turned(k, cos, sin), v)
    assert torch.equal(rows.values, stored[1])
    close = {"atol": 1e-6, "rtol": 1e-6} if dtype == torch.float32 else {"atol": 3e-2, "rtol": 2e-2}
    torch.testing.assert_close(rows.keys, stored[0], **close)
    torch.testing.assert_close(view.attend(1, turned(q, cos, sin), 0.3), out[:3], **close)
    x, weight = torch.randn(5, 24).to(dtype), torch.randn(24).to(dtype)
    wanted = torch.nn.functional.rms_norm(x.float(), [24], weight.float(), 1e-5).to(dtype)
    assert rows.kernel is not None
    torch.testing.assert_close(rows.kernel.norm(x, weight, 1e-5), wanted, **close)


@pytest.mark.parametrize("heads", [4, 2])
def test_prompts_are_read_alike_without_our_kernel(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of unlike lengths behind shared prefixes, by torch's kernels: padded, and merged by log-sum-exp."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=heads,
    )
    decoder = Decoder(LlamaForCausalLM(config).eval(), pack=None)
    prefix, prompts = torch.arange(40) % 64, [torch.arange(count) * 7 % 64 for count in (1, 9, 30)]
    found = []
    with torch.inference_mode():
        for known in (flash.known, lambda query: False):
            monkeypatch.setattr(flash, "known", known)
            shared = decoder.share((), decoder.embed(prefix))
            chains: list[tuple[Shared, ...]] = [(shared,), (shared,), ()]
            found.append(decoder.admit(decoder.rows(), chains, [decoder.embed(ids) for ids in prompts]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
