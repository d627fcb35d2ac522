"""The optimiser over the parts that train, each with its own peak rate, under one schedule."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.image.anyres import AnyRes
from llavakit.model.adapters import require
from llavakit.model.lean import check_compiled
from llavakit.model.llava import Llava
from llavakit.model.parts import part, tower_blocks
from llavakit.train.stage import Stage

MUON_SCALE = 20.0
"""Muon's rate over AdamW's: its update has unit singular values, AdamW's unit entries."""


COMPILED = 2**22
"""Weights from which on the step of 8 bits is compiled, which takes a minute on a CPU."""


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups marked ``matrix`` (the weights inside the layers), AdamW for the rest; one set of groups.

    Muon (Jordan et al. 2024; ``torch.optim.Muon``) is for training from scratch, as in the miniature.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, {})
        muon = [group for group in self.param_groups if group["matrix"]]
        rest = [group for group in self.param_groups if not group["matrix"]]
        # Both work on these very groups and on one state, so that rates and snapshots see a single optimiser.
        self.inner: list[torch.optim.Optimizer] = []
        if muon:
            self.inner.append(torch.optim.Muon(muon))
        if rest:
            self.inner.append(torch.optim.AdamW(rest, betas=betas, fused=True))
        for optimiser in self.inner:
            optimiser.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for optimiser in self.inner:
            optimiser.step()


def adamw8bit(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.Optimizer:
    """torchao's AdamW with moments in 8 bits; bfloat16 weights are rounded by chance. Rates may be set as numbers."""
    from torchao.optim import AdamW8bit

    class Adam(AdamW8bit):
        def step(self, closure: Callable[[], float] | None = None) -> float | None:
            rates = [group["lr"] for group in self.param_groups]
            for group in self.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]))  # a number would be compiled in
            # Compiled it keeps nothing beside its states; not compiled, ten times the largest weight.
            weights = sum(p.numel() for group in self.param_groups for p in group["params"])
            how = "default" if weights >= COMPILED else "force_eager"
            with torch.compiler.set_stance(how), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torchao's types, said by what compiles them
                loss: float | None = super().step(closure)
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
            return loss

    return Adam(groups, betas=betas, bf16_stochastic_round=True)


def check(model: Llava, stage: Stage) -> None:
    """Raises at once, :class:`~llavakit.base.errors.BadRequest`, what a later stage would be refused for."""
    if stage.optimiser == "adamw8bit" and importlib.util.find_spec("torchao") is None:
        raise BadRequest("optimiser: adamw8bit needs torchao: pip install 'llavakit[quantize]'")
    if stage.lora is not None:
        require(stage.lora)
    if stage.compile:
        check_compiled(model.language_model)
    tower_blocks(model, stage.tower_layers)
    if isinstance(stage.image, AnyRes):
        model.check_tiles()


def make_optimiser(model: Llava, stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser. Biases and norms never decay; rates are set per step."""
    groups: list[dict[str, Any]] = []
    for name, rate in stage.train.items():
        parameters = {n: p for n, p in part(model, name).named_parameters() if p.requires_grad}
        groups += _groups(parameters, rate, stage.weight_decay, name, stage.optimiser == "muon")
    if stage.optimiser == "muon":
        return MuonAdamW(groups, stage.betas)
    if stage.optimiser == "adamw8bit":
        return adamw8bit(groups, stage.betas)
    return torch.optim.AdamW(groups, betas=stage.betas, fused=True)


def muon(model: nn.Module, rate: float, weight_decay: float) -> MuonAdamW:
    """For all of a model that is not frozen."""
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return MuonAdamW(_groups(learning, rate, weight_decay, "all", True), (0.9, 0.98))


def _groups(
    parameters: dict[str, nn.Parameter], rate: float, weight_decay: float, name: str, muon: bool
) -> list[dict[str, Any]]:
    """Up to three groups of a part: Muon's matrices, what else decays, and the rest."""
    inner = {n for n, p in parameters.items() if muon and p.ndim == 2 and ".layers." in n}
    decayed = {n for n, p in parameters.items() if weight_decay and p.ndim > 1} - inner
    chosen = [(inner, MUON_SCALE, weight_decay), (decayed, 1.0, weight_decay)]
    chosen.append((parameters.keys() - inner - decayed, 1.0, 0.0))
    return [
        {
            "params": [p for n, p in parameters.items() if n in names],
            "lr": rate * scale,
            "peak": rate * scale,
            "scale": scale,
            "weight_decay": decay,
            "part": name,
            "matrix": scale != 1.0,
        }
        for names, scale, decay in chosen
        if names
    ]


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Sets every group's rate to ``factor`` of its peak; returns the rate of each part (AdamW's, where both are)."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    return {group["part"]: group["lr"] / group["scale"] for group in optimiser.param_groups}


def named_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors under the names of the parameters they belong to; of one in 8 bits, its two parts."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    named: dict[str, torch.Tensor] = {}
    for parameter, values in optimiser.state.items():
        for key, value in values.items():
            name = f"{names[id(parameter)]}|{key}"
            if hasattr(value, "codes"):
                named |= {f"{name}.{part}": getattr(value, part) for part in ("codes", "scale")}
            else:
                named[name] = value if torch.is_tensor(value) else torch.tensor(value)
    return named


def load_named_state(model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """The inverse of :func:`named_state`, for parameters that train in both."""
    parameters = dict(model.named_parameters())
    for key, value in state.items():
        name, _, field = key.rpartition("|")
        field, _, part = field.partition(".")
        parameter = parameters[name]
        values = optimiser.state[parameter]
        if part:
            small: Any = optimiser
            if field not in values:
                values[field] = small._new_buffer(parameter, signed=field == "exp_avg")
            getattr(values[field], part).copy_(value)
        else:
            values[field] = value.to(parameter.device)
