"""What the machine at hand can do at most: its own matrix product, measured."""

from __future__ import annotations

import time

import torch


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOP/s of the best of several square matrix products on ``device``, this process's threads at work. Draws no
    random number of torch's own."""
    size = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(a)
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        _wait(device)
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
