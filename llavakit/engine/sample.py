"""Choosing the next token: greedy, or by temperature, top-k and top-p, each row with a seed of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _sound(self) -> Decoding:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("num_beams above 1 is a search without sampling; set temperature to 0")
        if not all(self.stop):
            raise ValueError("a stop string must not be empty")
        return self


GREEDY = Decoding()


def choose(
    logits: torch.Tensor,
    hows: Sequence[Decoding],
    seen: Sequence[Collection[int]],
    generators: Sequence[torch.Generator],
) -> list[int]:
    """Logits ``float[n, V]`` -> a token id for each row.

    ``seen``: the ids of prompt and answer so far, looked at where there is a repetition penalty. A row takes one
    number of its generator for each token that it samples, so no row depends on another.
    """
    if any(how.repetition_penalty != 1 for how in hows):
        logits = torch.stack(
            [repelled(row, ids, how.repetition_penalty) for row, ids, how in zip(logits, seen, hows, strict=True)]
        )
    # In float32: for bfloat16 torch's argmax has no vector code on a CPU and takes four times as long.
    ids: list[int] = logits.float().argmax(-1).tolist()
    alike: dict[tuple[float, float, int], list[int]] = {}
    for row, how in enumerate(hows):
        if how.temperature > 0:
            alike.setdefault((how.temperature, how.top_p, how.top_k), []).append(row)
    for rows in alike.values():
        drawn = torch.stack([torch.rand((), generator=generators[row], dtype=torch.float64) for row in rows])
        for row, id in zip(rows, _draw(logits[rows], hows[rows[0]], drawn.to(logits.device)), strict=True):
            ids[row] = id
    return ids


def repelled(scores: torch.Tensor, ids: Collection[int], penalty: float) -> torch.Tensor:
    """Scores ``float[V]``, those of ``ids`` divided by the penalty, or multiplied where they are negative."""
    if penalty == 1:
        return scores
    at = torch.tensor(sorted(ids), device=scores.device)
    found = scores[at]
    return scores.index_copy(0, at, torch.where(found < 0, found * penalty, found / penalty))


def _draw(logits: torch.Tensor, how: Decoding, drawn: torch.Tensor) -> list[int]:
    """``float[n, V]`` and numbers of [0, 1) -> ids, by where each number falls in the summed probabilities."""
    probabilities = torch.softmax(logits.float() / how.temperature, dim=-1)
    ids = None
    if how.top_k:
        probabilities, ids = probabilities.topk(min(how.top_k, logits.shape[-1]), dim=-1)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    elif how.top_p < 1:
        probabilities, ids = probabilities.sort(dim=-1, descending=True)
    if how.top_p < 1:
        # Keep a token while the mass before it is below top_p: the most likely one always stays.
        probabilities = probabilities.masked_fill(probabilities.cumsum(-1) - probabilities >= how.top_p, 0)
    mass = probabilities.double().cumsum(-1)
    # right=True: a token of probability 0 takes up no room, so nothing falls on it.
    at = torch.searchsorted(mass, (drawn * mass[:, -1])[:, None], right=True).clamp(max=mass.shape[-1] - 1)
    chosen: list[int] = (at if ids is None else ids.gather(-1, at)).squeeze(-1).tolist()
    return chosen
