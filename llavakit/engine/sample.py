"""Choosing the next token: greedy, or temperature and top-p with a seed."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator

from llavakit.base.config import Config


class Decoding(Config):
    """How answers are written. Temperature 0 is greedy, as the benchmarks ask.

    ``top_k`` 0 keeps every token. ``num_beams`` above 1 is beam search, which takes no temperature;
    ``length_penalty`` is the exponent of an answer's length by which its score is divided. ``repetition_penalty``
    above 1 makes every token that the prompt or the answer holds less likely. The answer ends before a string of
    ``stop``. With one ``seed`` a question has one answer, whatever else is asked beside it.
    """

    max_new_tokens: int = Field(512, gt=0)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    num_beams: int = Field(1, ge=1)
    length_penalty: float = 1.0
    repetition_penalty: float = Field(1.0, gt=0)
    stop: tuple[str, ...] = ()
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Decoding:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("num_beams above 1 is a search without sampling; set temperature to 0")
        if not all(self.stop):
            raise ValueError("a stop string must not be empty")
        return self


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
