"""AdamW over the parts that train, each with its own peak rate, under one schedule."""

from __future__ import annotations

import torch
from torch import nn

from llavakit.model.llava import Llava
from llavakit.model.parts import part
from llavakit.train.stage import Stage


def adamw(model: Llava, stage: Stage) -> torch.optim.AdamW:
    """One group a part (two where weight decay applies: biases and norms never decay). Rates are set per step."""
    groups = []
    for name, rate in stage.train.items():
        parameters = [p for p in part(model, name).parameters() if p.requires_grad]
        decayed = [p for p in parameters if stage.weight_decay and p.ndim > 1]
        plain = [p for p in parameters if not (stage.weight_decay and p.ndim > 1)]
        for chosen, decay in ((decayed, stage.weight_decay), (plain, 0.0)):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay, "part": name})
    return torch.optim.AdamW(groups, betas=stage.betas, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Sets every group's rate to ``factor`` of its peak; returns the rate of each part."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    return {group["part"]: group["lr"] for group in optimiser.param_groups}


def named_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors under the names of the parameters they belong to."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}|{key}": value if torch.is_tensor(value) else torch.tensor(value)
        for parameter, values in optimiser.state.items()
        for key, value in values.items()
    }


def load_named_state(model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """The inverse of :func:`named_state`, for parameters that train in both."""
    parameters = dict(model.named_parameters())
    for key, value in state.items():
        name, _, field = key.rpartition("|")
        optimiser.state[parameters[name]][field] = value.to(parameters[name].device)
