"""The steps between the products, values and gradients, against torch's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.rows.models import made
from llavakit.model import blocks, fused, products
from llavakit.model.attention import attend_by_kernels


def same(ours: torch.Tensor, theirs: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    direction = torch.randn_like(theirs)
    found = [torch.autograd.grad(out, inputs, direction) for out in (ours, theirs)]
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


@pytest.mark.parametrize(("heads", "window"), [(4, None), (2, None), (1, 50), (4, 70)])
def test_attention_in_blocks(heads: int, window: int | None) -> None:
    """All queries, and some, over segments longer and shorter than a block; heads that share keys; windows."""
    torch.manual_seed(0)
    segments = [200, 3, 77]
    q, k, v = drawn(4, 280, 16), drawn(heads, 280, 16), drawn(heads, 280, 16)
    back = torch.arange(280)[:, None] - torch.arange(280)
    seen = torch.block_diag(*[torch.ones(n, n) for n in segments]).bool() & (back >= 0) & (back < (window or 280))
    theirs = nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], seen, enable_gqa=True)[0]
    same(blocks.attend(q, k, v, segments, 0.25, window), theirs, (q, k, v))
    index = torch.tensor([0, 5, 64, 150, 199, 203, 210, 279])
    theirs = nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], seen, enable_gqa=True)[0]
    some = blocks.attend(q[:, index], k, v, segments, 0.25, window, blocks.Queries.of(index, segments))
    same(some, theirs[:, index], (q, k, v))
    kernels = attend_by_kernels(q, k, v, segments, 0.25, window, None)
    same(kernels, blocks.attend(q, k, v, segments, 0.25, window), (q, k, v))
    queries = blocks.Queries.of(index, segments)
    kernels = attend_by_kernels(q[:, index], k, v, segments, 0.25, window, queries)
    same(kernels, blocks.attend(q[:, index], k, v, segments, 0.25, window, queries), (q, k, v))


def test_bfloat16_is_near() -> None:
    torch.manual_seed(0)
    exact = [drawn(4, 300, 16) for _ in range(3)]
    rounded = [t.detach().bfloat16().requires_grad_() for t in exact]
    results = [blocks.attend(*inputs, [300], 0.25) for inputs in (exact, rounded)]
    torch.testing.assert_close(results[1].float(), results[0], rtol=0.03, atol=0.03)
    for result in results:
        result.float().square().sum().backward()
    for one, other in zip(exact, rounded, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad.float()).norm() <= 0.03 * one.grad.norm()


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
