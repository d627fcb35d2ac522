"""The parts of a Llava that can train, by name, and the learning rate of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.model.llava import Llava

Part = Literal["vision_tower", "connector", "language_model"]

PARTS: tuple[Part, ...] = ("vision_tower", "connector", "language_model")


def part(model: Llava, name: Part) -> nn.Module:
    return {
        "vision_tower": model.vision_tower.model,
        "connector": model.multi_modal_projector,
        "language_model": model.language_model,
    }[name]


def freeze_all_but(model: Llava, rates: Mapping[Part, float]) -> None:
    """Sets ``requires_grad``: the parts named in ``rates`` train, the rest is frozen.

    Raises :class:`BadRequest` when nothing would train.
    """
    if not rates:
        raise BadRequest("no part of the model is named to train; name at least one of " + ", ".join(PARTS))
    model.requires_grad_(False)
    for name in rates:
        module = part(model, name)
        module.requires_grad_(True)
        if name == "connector" and model.multi_modal_projector.kind == "linear":
            model.multi_modal_projector.linear_2.requires_grad_(False)


def count(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters (shared ones once), or of those that train."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
