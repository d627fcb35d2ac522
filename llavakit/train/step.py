"""One optimiser step: forward and backward over its rows, the mean over all supervised tokens, clip, update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from llavakit.base.dist import all_sum, fail
from llavakit.base.errors import WorkFailed
from llavakit.data.loader import Step
from llavakit.model.llava import Llava
from llavakit.model.shards import whole


@dataclass(frozen=True)
class Outcome:
    loss: float
    grad_norm: float


def train_step(
    model: Llava, step: Step, optimiser: torch.optim.Optimizer, clip: float | None, precision: torch.dtype
) -> Outcome:
    """Loss is the sum over supervised tokens divided by their number in the whole step, however it is cut in rows and
    whichever ranks these are on.

    Raises :class:`WorkFailed`, before any weight moves, when the loss or the gradient is not finite.
    """
    optimiser.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    for row in step.rows:
        batch = row.to(model.device)
        with torch.autocast(model.device.type, dtype=precision, enabled=precision != torch.float32):
            loss = model(batch) / step.supervised
        if loss.requires_grad:  # not that of a row without pictures when the connector alone trains
            loss.backward()
        total += loss.detach()
    mean = all_sum(total).item()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = whole(torch.nn.utils.clip_grad_norm_(parameters, clip if clip is not None else math.inf)).item()
    if not (math.isfinite(mean) and math.isfinite(norm)):
        fail(WorkFailed(f"step {step.number}: loss {mean}, gradient norm {norm}; lower the learning rate"))
    optimiser.step()
    return Outcome(mean, norm)
