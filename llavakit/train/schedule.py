"""The learning-rate schedule of every training here."""

from __future__ import annotations

import math


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the peak rate at step ``step`` (0-based) of ``total``: linear warm-up, then a cosine to 0.

    ``warmup``: share of the steps, or from 1 on their number; of more than there are, the peak is never reached."""
    rising = math.ceil(total * warmup) if warmup < 1 else int(warmup)
    if step < rising:
        return step / max(1, rising)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
