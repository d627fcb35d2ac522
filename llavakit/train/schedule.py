"""The learning-rate schedule of every training here."""

from __future__ import annotations

import math


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the peak rate at step ``step`` (0-based) of ``total``: linear warm-up, then a cosine to 0."""
    rising = warmup_steps(total, warmup)
    if step < rising:
        return step / max(1, rising)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def warmup_steps(total: int, warmup: float) -> int:
    """Steps in which the rate rises. ``warmup``: their share of ``total``, or from 1 on their number."""
    return math.ceil(total * warmup) if warmup < 1 else int(warmup)
