"""One optimiser step: forward and backward over its rows, the mean over all supervised tokens, clip, update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llavakit.base.errors import WorkFailed
from llavakit.data.loader import Step
from llavakit.model.llava import Llava


@dataclass(frozen=True)
class Outcome:
    loss: float
    grad_norm: float


def train_step(
    model: Llava, step: Step, optimiser: torch.optim.Optimizer, clip: float | None, precision: torch.dtype
) -> Outcome:
    """Loss is the sum over supervised tokens divided by their number in the whole step, however it is cut in rows.

    Raises :class:`WorkFailed`, before any weight moves, when the loss or the gradient is not finite.
    """
    optimiser.zero_grad(set_to_none=True)
    total = 0.0
    for row in step.rows:
        batch = row.to(model.device)
        with torch.autocast(model.device.type, dtype=precision, enabled=precision != torch.float32):
            loss = model(batch) / step.supervised
        loss.backward()
        total += loss.item()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip if clip is not None else float("inf")).item()
    if not (total == total and norm == norm and abs(total) != float("inf") and norm != float("inf")):
        raise WorkFailed(f"step {step.number}: loss {total}, gradient norm {norm}; lower the learning rate")
    optimiser.step()
    return Outcome(total, norm)
