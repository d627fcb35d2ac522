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
from llavakit.base.errors import BadRequest
from llavakit.model.llava import Llava
from llavakit.model.parts import part, tower_blocks
from llavakit.model.quantise import full, layer_linears, quantise


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


def attach(
    model: Llava, lora: Lora, tower_layers: int | None = None, seed: int = 0, device: torch.device | str = "cpu"
) -> None:
    """Puts fresh adapters into ``model``, in place: it computes what it computed before. What trains is not decided
    here. Of the tower, the last ``tower_layers`` of the layers that run take them (None: all).

    Raises :class:`BadRequest` as :func:`require` does.
    """
    require(lora)
    if lora.base == "nf4" and "language_model" in lora.parts:
        # Matrix by matrix, so that the device never holds the model unquantised.
        quantise(model.language_model, "nf4", device)
    torch.manual_seed(seed)
    for name in lora.parts:
        module = part(model, name)
        targets = list(layer_linears(module))
        if name == "vision_tower":
            chosen = {id(m) for block in tower_blocks(model, tower_layers) for m in block.modules()}
            targets = [target for target in targets if id(module.get_submodule(target)) in chosen]
        _inject(module, lora, targets)


def _inject(module: nn.Module, lora: Lora, targets: list[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, use_dora=lora.dora, target_modules=targets
    )
    inject_adapter_in_model(config, module)


def merge(model: Llava) -> None:
    """Adds every adapter to the weights beside which it learnt, and leaves the plain float32 model, in place,
    on the CPU."""
    from peft.tuners.lora import LoraLayer

    for root in (model.vision_tower.model, model.language_model):
        # A list: the tree changes under way.
        for name, module in [(n, m) for n, m in root.named_modules() if isinstance(m, LoraLayer)]:
            layer: Any = module
            plain = full(layer.base_layer)
            with torch.no_grad():
                if layer.use_dora["default"]:
                    layer.base_layer = plain
                    layer.merge()
                else:
                    plain.weight += layer.get_delta_weight("default").to(plain.weight)
            root.set_submodule(name, plain.to("cpu"))
        vars(root).pop("peft_config", None)  # else peft takes the next stage's adapters for a second set
    model.to("cpu")
