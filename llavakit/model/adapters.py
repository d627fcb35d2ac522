"""LoRA, DoRA and QLoRA through peft: small matrices beside those of the layers learn, and are merged at a stage's end,
so that what is saved is the native checkpoint of every other run.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from llavakit.base.config import Config
from llavakit.base.dist import is_main
from llavakit.base.errors import BadRequest
from llavakit.model.llava import Llava
from llavakit.model.parts import blocks, language_blocks, tower_blocks
from llavakit.model.quantise import full, to_nf4
from llavakit.model.shards import whole


class Lora(Config):
    """Low-rank adapters on every matrix inside the layers of ``parts``. Defaults are LLaVA-1.5's. The rate is that of
    the part in the stage's ``train``."""

    rank: int = Field(128, gt=0)
    alpha: int = Field(256, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    dora: bool = False
    """Direction and magnitude apart (DoRA): one more vector a matrix."""
    base: Literal["full", "nf4"] = "full"
    """``nf4`` is QLoRA: the frozen matrices of the language model in 4 bits."""
    parts: tuple[Literal["language_model", "vision_tower"], ...] = Field(("language_model",), min_length=1)

    @model_validator(mode="after")
    def _dora_sees_weights(self) -> Lora:
        if self.dora and self.base == "nf4":
            raise ValueError("DoRA measures the weights beside it at every step, which 4 bits do not allow; choose one")
        return self


def require(lora: Lora) -> None:
    """Raises :class:`BadRequest` when a package that ``lora`` needs is not installed."""
    missing = [name for name in ("peft", "torchao") if importlib.util.find_spec(name) is None]
    if "peft" in missing or (missing and lora.base == "nf4"):
        raise BadRequest(f"these adapters need {' and '.join(missing)}: pip install 'llavakit[adapters]'")


def adapted(model: Llava, lora: Lora, tower_layers: int | None = None) -> dict[int, bool]:
    """``id`` of every layer that takes adapters, and whether its matrices are to be in 4 bits. Of the tower those are
    the last ``tower_layers`` of the layers that run (None: all)."""
    layers: dict[int, bool] = {}
    if "vision_tower" in lora.parts:
        layers |= {id(block): False for block in tower_blocks(model, tower_layers)}
    if "language_model" in lora.parts:
        layers |= {id(block): lora.base == "nf4" for block in language_blocks(model)}
    return layers


def attach(block: nn.Module, lora: Lora, quantised: bool, device: torch.device | str = "cpu") -> None:
    """Puts fresh adapters on every matrix of a layer, in place: it computes what it computed before, but for what
    rounding to 4 bits does to it if ``quantised``. What trains is not decided here."""
    from peft import LoraConfig, inject_adapter_in_model

    matrices = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    if quantised:
        # Matrix by matrix, so that the device never holds the model unquantised.
        for name, linear in matrices.items():
            to_nf4(block, name, linear, torch.device(device))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=list(matrices),
    )
    inject_adapter_in_model(config, block)


def merge(model: Llava) -> None:
    """Adds every adapter to the weights beside which it learnt, and leaves the plain float32 model, in place: sharded
    where it was, else on the CPU.

    What was in 4 bits, and so on every rank, is left on the first one only.
    """
    from peft.tuners.lora import LoraLayer

    for block in blocks(model):
        # A list: the tree changes under way.
        for name, module in [(n, m) for n, m in block.named_modules() if isinstance(m, LoraLayer)]:
            block.set_submodule(name, _merged(module))
        vars(block).pop("peft_config", None)  # else peft takes the next stage's adapters for a second set


def _merged(layer: Any) -> nn.Linear:
    """One adapted layer as the plain one; all ranks make it together, then keep their shares of it."""
    sharded = layer.base_layer.weight if hasattr(layer.base_layer.weight, "full_tensor") else None
    for module in layer.modules():
        for key, parameter in module._parameters.items():
            if hasattr(parameter, "full_tensor"):
                module._parameters[key] = nn.Parameter(whole(parameter), requires_grad=False)
    plain = full(layer.base_layer)
    with torch.no_grad():
        if layer.use_dora["default"]:
            layer.base_layer = plain
            layer.merge()
        else:
            plain.weight += layer.get_delta_weight("default").to(plain.weight)
    if sharded is None:
        return plain.to("cpu" if is_main() else "meta")
    from torch.distributed.tensor import distribute_tensor

    for key, parameter in plain._parameters.items():
        if parameter is not None:
            share = distribute_tensor(parameter.detach(), sharded.device_mesh, sharded.placements, src_data_rank=None)
            plain._parameters[key] = nn.Parameter(share, requires_grad=False)
    return plain
