"""The parts of a Llava that can train, by name, and the learning rate of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.model.llava import Llava
from llavakit.model.towers import layer_list

Part = Literal["vision_tower", "connector", "language_model"]

PARTS: tuple[Part, ...] = ("vision_tower", "connector", "language_model")


def part(model: Llava, name: Part) -> nn.Module:
    return {
        "vision_tower": model.vision_tower.model,
        "connector": model.multi_modal_projector,
        "language_model": model.language_model,
    }[name]


def tower_blocks(model: Llava, last: int | None = None) -> list[nn.Module]:
    """The layers of the tower that run, or the ``last`` of them. Raises :class:`BadRequest` when there are fewer."""
    layers = model.vision_tower.layers
    if last is not None and last > len(layers):
        raise BadRequest(f"the last {last} layers of the tower are to train, and {len(layers)} of its layers are used")
    return layers if last is None else layers[-last:]


def blocks(model: Llava) -> list[nn.Module]:
    """Every transformer layer: the tower's, those that never run too, and the language model's."""
    return [*model.vision_tower.layers, *model.vision_tower.unused, *language_blocks(model)]


def language_blocks(model: Llava) -> list[nn.Module]:
    owner, name = layer_list(model.language_model)
    return list(getattr(model.language_model.get_submodule(owner), name))


def freeze_all_but(
    model: Llava, rates: Mapping[Part, float], tower_layers: int | None = None, adapted: Collection[Part] = ()
) -> None:
    """Sets ``requires_grad``: the parts named in ``rates`` train, the rest is frozen. Of the tower only its last
    ``tower_layers`` do; of a part in ``adapted`` only its adapters.

    Raises :class:`BadRequest` when nothing would train.
    """
    if not rates:
        raise BadRequest("no part of the model is named to train; name at least one of " + ", ".join(PARTS))
    model.requires_grad_(False)
    for name in rates:
        whole = name != "vision_tower" or tower_layers is None
        for module in [part(model, name)] if whole else tower_blocks(model, tower_layers):
            for key, parameter in module.named_parameters():
                parameter.requires_grad_(name not in adapted or "lora_" in key)
        if name == "connector" and model.multi_modal_projector.kind == "linear":
            model.multi_modal_projector.linear_2.requires_grad_(False)


def count(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters (shared ones once), or of those that train."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
