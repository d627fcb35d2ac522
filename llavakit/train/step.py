"""One optimiser step: forward and backward over its rows, the mean over all supervised tokens, clip, update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from llavakit.base.dist import all_sum
from llavakit.data.loader import Step
from llavakit.model.llava import Llava
from llavakit.model.shards import whole
from llavakit.train.guard import Guard, Watch
from llavakit.train.ledger import Ledger


@dataclass(frozen=True)
class Outcome:
    """Loss and gradient norm; ``ledger``: whose loss; ``unsound``: what is wrong with the step, or empty."""

    loss: float
    grad_norm: float
    ledger: Ledger
    unsound: str = ""
    skipped: bool = False


def train_step(
    model: Llava,
    step: Step,
    optimiser: torch.optim.Optimizer,
    clip: float | None,
    precision: torch.dtype,
    watch: Watch | None = None,
) -> Outcome:
    """Loss is the sum over supervised tokens divided by their number in the whole step, however it is cut in rows and
    whichever ranks these are on.

    Where ``watch`` says so no weight moves, or :class:`~llavakit.base.errors.WorkFailed` is raised before one does;
    without it, when loss or gradient is not finite.
    """
    watch = watch or Watch(Guard(), "training")
    optimiser.zero_grad(set_to_none=True)
    total, ledger = torch.zeros((), dtype=torch.float64, device=model.device), Ledger()
    for row in step.rows:
        batch = row.to(model.device)
        losses: list[torch.Tensor] = []
        with torch.autocast(model.device.type, dtype=precision, enabled=precision != torch.float32):
            loss = model(batch, by_token=losses.append) / step.supervised
        if loss.requires_grad:  # not that of a row without pictures when the connector alone trains
            loss.backward()
        total += loss.detach()
        ledger.add(batch, losses)
    mean = all_sum(total).item()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = whole(torch.nn.utils.clip_grad_norm_(parameters, clip if clip is not None else math.inf)).item()
    unsound, skipped = watch.judge(step.number, mean, norm, ledger)
    if not skipped:
        optimiser.step()
    return Outcome(mean, norm, ledger, unsound, skipped)
