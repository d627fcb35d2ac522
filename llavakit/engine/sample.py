"""Choosing the next token: greedy, or temperature and top-p with a seed."""

from __future__ import annotations

import torch
from pydantic import Field

from llavakit.base.config import Config


class Decoding(Config):
    """How answers are written. Temperature 0 is greedy, as the benchmarks ask."""

    max_new_tokens: int = Field(512, gt=0)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0


def choose(logits: torch.Tensor, how: Decoding, generator: torch.Generator) -> torch.Tensor:
    """Logits ``float[B, V]`` -> token ids ``int64[B]``."""
    if how.temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / how.temperature, dim=-1)
    ordered, ids = probabilities.sort(dim=-1, descending=True)
    # Keep a token while the mass before it is below top_p: the most likely one always stays.
    ordered[ordered.cumsum(-1) - ordered >= how.top_p] = 0
    picked = torch.multinomial(ordered, 1, generator=generator)
    return ids.gather(-1, picked).squeeze(-1)
