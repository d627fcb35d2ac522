"""The steps between the products, values and gradients, against torch's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.rows.models import made
from llavakit.model import blocks, cpp, flash, fused, products
from llavakit.model.attention import attend_by_kernels, whole_attention
from tests import compiler

WAYS = pytest.mark.parametrize("way", [blocks, flash])


def same(ours: torch.Tensor, theirs: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    direction = torch.randn_like(theirs)
    found = [torch.autograd.grad(out, inputs, direction, retain_graph=True) for out in (ours, theirs)]
    for mine, other in zip(*found, strict=True):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, requires_grad=True)


def test_steps_between_the_products() -> None:
    torch.manual_seed(0)
    x, weight, up = drawn(1, 50, 64), drawn(64), drawn(1, 50, 64)
    same(fused.rms_norm(x, weight, 1e-6), nn.functional.rms_norm(x, (64,), weight, 1e-6), (x, weight))
    same(fused.silu_times(x, up), nn.functional.silu(x) * up, (x, up))
    logits, targets = drawn(130, 77), torch.randint(0, 77, (130,))
    theirs = nn.functional.cross_entropy(logits, targets, reduction="none")
    same(fused.cross_entropy(logits, targets), theirs, (logits,))


def test_rotation_is_transformers() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(0)
    x, angle = drawn(50, 4, 16), torch.randn(50, 8)
    cos, sin = (torch.cat([f(angle)] * 2, -1)[None] for f in (torch.cos, torch.sin))
    heads = x.transpose(0, 1)[None]
    theirs = apply_rotary_pos_emb(heads, heads, cos, sin)[0][0].transpose(0, 1)
    same(fused.rotate(x, angle.cos()[:, None], angle.sin()[:, None]), theirs, (x,))


def needs(way: Any, query: torch.Tensor) -> None:
    """Skips where the kernel cannot be; where it can and is not compiled, that is a failure."""
    if way is not flash:
        return
    if not compiler.there_is_one():
        pytest.skip("there is no compiler")
    assert cpp.library(flash.SOURCE, query.shape[-1]) is not None
    if query.dtype == torch.bfloat16 and not flash.known(query):
        pytest.skip("this processor has no bfloat16 instructions that the kernel uses")
    assert flash.known(query)


@WAYS
@pytest.mark.parametrize("width", [24, 80])
@pytest.mark.parametrize(("heads", "window"), [(4, None), (2, None), (1, 50), (4, 70)])
def test_attention_within_segments(way: Any, width: int, heads: int, window: int | None) -> None:
    """All queries, and some, over segments longer and shorter than a block; heads that share keys; windows."""
    torch.manual_seed(0)
    segments = [200, 3, 77, 9]
    q, k, v = drawn(4, 289, width), drawn(heads, 289, width), drawn(heads, 289, width)
    needs(way, q)
    back = torch.arange(289)[:, None] - torch.arange(289)
    seen = torch.block_diag(*[torch.ones(n, n) for n in segments]).bool() & (back >= 0) & (back < (window or 289))
    theirs = nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], seen, enable_gqa=True, scale=0.25)[0]
    same(way.attend(q, k, v, segments, 0.25, window), theirs, (q, k, v))
    index = torch.tensor([0, 5, 64, 150, 199, 203, 210, 279])  # none in the last
    queries = blocks.Queries.of(index, segments)
    same(way.attend(q[:, index], k, v, segments, 0.25, window, queries), theirs[:, index], (q, k, v))
    same(attend_by_kernels(q, k, v, segments, 0.25, window, None), theirs, (q, k, v))
    same(attend_by_kernels(q[:, index], k, v, segments, 0.25, window, queries), theirs[:, index], (q, k, v))


@WAYS
def test_what_is_hidden_changes_nothing(way: Any) -> None:
    """Neither what comes later nor another segment, not even by a bit, nor gets it a gradient."""
    torch.manual_seed(0)
    q, k, v = drawn(2, 260, 16), drawn(2, 260, 16), drawn(2, 260, 16)
    needs(way, q)
    out = way.attend(q, k, v, [200, 60], 0.25)
    for gradient in torch.autograd.grad(out[:, 50:150].sum(), (k, v)):
        assert not gradient[:, 150:].any() and gradient[:, :150].any()
    with torch.no_grad():
        k[:, 150:] += 5
        v[:, 150:] -= 5
    assert torch.equal(way.attend(q, k, v, [200, 60], 0.25)[:, :150], out[:, :150])


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_shows(way: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 200, 16, dtype=dtype) for _ in range(3))
    needs(way, q)
    k[:, 150] = torch.nan
    out = way.attend(q, k, v, [120, 80], 0.25)
    assert out[:, 150:].isnan().all() and out[:, :150].isfinite().all()


def test_attention_of_the_whole() -> None:
    torch.manual_seed(0)
    q, k, v = (drawn(3, 50, 2, 16).transpose(1, 2) for _ in range(3))
    ours, _ = whole_attention(nn.Module(), q, k, v, None, 0.25)
    same(ours.transpose(1, 2), nn.functional.scaled_dot_product_attention(q, k, v, scale=0.25), (q, k, v))


def test_segments_of_another_row_are_refused() -> None:
    q = drawn(2, 30, 16)
    needs(flash, q)
    for segments in ([20, 9], [20, 11]):
        with pytest.raises(ValueError, match="are not those of 30, 30 tokens"):
            flash.attend(q, q, q, segments, 0.25)


def test_attention_is_traced() -> None:
    """As OpenVINO's converter does it: by torch's operations, not as a constant."""
    torch.manual_seed(0)
    first, second = ([torch.randn(1, 2, 50, 16) for _ in range(3)] for _ in range(2))
    traced = torch.jit.trace(lambda q, k, v: whole_attention(nn.Module(), q, k, v, None)[0], first)
    torch.testing.assert_close(traced(*second), whole_attention(nn.Module(), *second, None)[0], rtol=1e-5, atol=1e-5)


@WAYS
def test_bfloat16_is_near(way: Any) -> None:
    torch.manual_seed(0)
    exact = [drawn(4, 300, 16) for _ in range(3)]
    rounded = [t.detach().bfloat16().requires_grad_() for t in exact]
    needs(way, rounded[0])
    results = [way.attend(*inputs, [300], 0.25) for inputs in (exact, rounded)]
    torch.testing.assert_close(results[1].float(), results[0], rtol=0.03, atol=0.03)
    for result in results:
        result.float().square().sum().backward()
    for one, other in zip(exact, rounded, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad.float()).norm() <= 0.03 * one.grad.norm()


def test_without_a_compiler_torch_attends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build = cpp.library.__wrapped__
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build(flash.SOURCE, 64) is None
    monkeypatch.setenv("CXX", "false")
    with caplog.at_level("WARNING", logger="llavakit"):
        assert build(flash.SOURCE, 64) is None
    assert sys.platform != "linux" or "flash.cpp is not compiled, and this CPU computes more slowly" in caplog.text
    assert list(tmp_path.rglob("*.so*")) == []


def test_products_stay_exact_however_fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where what is measured would be chosen at any speed; a processor with fast bfloat16 gives that as "bf16"."""
    how = torch.backends.mkldnn.matmul
    before = how.fp32_precision
    monkeypatch.setattr(products, "FASTER", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        products.choose_products()
        chosen, how.fp32_precision = how.fp32_precision, before
        monkeypatch.setattr(products, "FASTER", float("inf"))
        products.choose_products()
        assert how.fp32_precision == chosen  # as this machine did before, whatever would be measured now
        a, b = torch.randn(300, 512), torch.randn(512, 700)
        exact = a.double() @ b.double()
        assert (a @ b - exact).abs().max() <= 4e-6 * exact.abs().max()
        (kept,) = (tmp_path / "llavakit").iterdir()
        kept.write_text("bf")  # cut off
        how.fp32_precision = before
        products.choose_products()
        assert how.fp32_precision == before == kept.read_text()  # measured again
    finally:
        how.fp32_precision = before


@pytest.mark.parametrize(("family", "dropout"), [("clip", "dropout"), ("dinov2", "probs_dropout_prob")])
def test_a_tower_in_bfloat16_by_plain_products(family: str, dropout: str, tmp_path: Path) -> None:
    """Near float32, and in use: without it the numbers are others."""
    model, _ = made(family, "llama", tmp_path)
    tower, pixels = model.vision_tower.eval(), torch.randn(2, 3, 28, 28)
    exact = tower(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        ours = tower(pixels)
        setattr(tower.config, f"attention_{dropout}", 0.1)  # in evaluation it does nothing, but ours does not know it
        theirs = tower(pixels)
    assert not torch.equal(ours, theirs)
    assert (ours - exact).norm() <= 0.02 * exact.norm() and (theirs - exact).norm() <= 0.02 * exact.norm()
