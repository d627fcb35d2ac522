"""The loop that trains a backbone from scratch."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from llavakit.base.files import JsonlLog
from llavakit.base.log import log, progress
from llavakit.train.optim import muon, set_rates


def optimise(
    name: str,
    model: torch.nn.Module,
    loss_of_next: Callable[[], torch.Tensor],
    steps: int,
    lr: float,
    precision: str,
    metrics: JsonlLog,
    falls: float = 0.5,
) -> None:
    """Muon for the matrices inside the layers, AdamW for the rest; clip 1.0. The rate rises over 5 % of the steps,
    holds, and falls to 0 over the last ``falls`` of them."""
    optimiser = muon(model, lr, weight_decay=0.01)
    model.train()
    bar = progress(total=steps, desc=name, unit="step")
    start = time.perf_counter()
    for step in range(steps):
        rate = set_rates(optimiser, min(1.0, (step + 1) / (0.05 * steps), (1 - step / steps) / falls))["all"]
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of_next()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        bar.update()
        bar.set_postfix_str(f"loss {loss.item():.3f} lr {rate:.1e}")
        metrics.append({"stage": name, "step": step + 1, "loss": loss.item(), "lr/all": rate})
    bar.close()
    log.info(f"{name}: {steps} steps in {time.perf_counter() - start:.0f} s, loss {loss.item():.3f}")
    model.eval()
