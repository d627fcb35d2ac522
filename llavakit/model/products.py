"""Which of torch's libraries multiplies float32 matrices on a CPU.

By default MKL does, which on processors of other makers may take a slow path. oneDNN is reached by allowing it less
exact products, and where the processor has none that would pay it gives float32 all the same: so speed and error are
measured, and it is chosen only where it is much faster and as exact.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from llavakit.base.log import log

FASTER = 1.4  # well above what another program on the machine may feign, so that a run and its resumption agree
EXACT = 4e-6  # of the largest entry; products in bfloat16 are at 2e-3


def choose_products() -> None:
    """Sets ``torch.backends.mkldnn.matmul.fp32_precision`` for this process, where it is the default's still."""
    how: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if not torch.backends.mkldnn.is_available() or how.fp32_precision not in ("none", "ieee"):
        return
    before = how.fp32_precision
    drawn = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=drawn) for shape in ((512, 512), (512, 768)))
    exact = a.double() @ b.double()
    seconds, error = {}, 0.0
    try:
        for precision in (before, "bf16"):
            how.fp32_precision = precision
            error = float((a @ b - exact).abs().max() / exact.abs().max())
            seconds[precision] = min(_seconds(a, b) for _ in range(4))
    finally:
        how.fp32_precision = before
    if error <= EXACT and seconds[before] > FASTER * seconds["bf16"]:
        how.fp32_precision = "bf16"
        log.info(
            f"float32 products by oneDNN: {seconds[before] / seconds['bf16']:.1f} times as fast, error {error:.0e}"
        )


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.process_time()
    a @ b
    return time.process_time() - start
