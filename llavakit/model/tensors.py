"""The tensors of a native checkpoint's files, checked as a whole before any is read, then read one at a time into a
model that has none yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json

Give = Callable[[str, nn.Parameter], torch.Tensor]
"""Values for a parameter by its name; the parameter itself, on the meta device, says their shape."""


def fill(module: nn.Module, names: Mapping[int, str], give: Give, device: torch.device | str = "cpu") -> None:
    """Puts values from ``give`` into every parameter of ``module`` that is on the meta device yet, and no other.

    ``names``: of parameters, by ``id``. They keep their dtype and whether they train.
    """
    made: dict[int, nn.Parameter] = {}  # a tied weight stays one
    for owner in module.modules():
        for key, parameter in owner._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if id(parameter) not in made:
                # A copy: what safetensors gives is the mapped file, which others may overwrite.
                value = give(names[id(parameter)], parameter).to(device, parameter.dtype, copy=True)
                made[id(parameter)] = nn.Parameter(value, parameter.requires_grad)
            owner._parameters[key] = made[id(parameter)]


class Tensors:
    """``tensors(name)`` reads one tensor, a :data:`Give`. The files are mapped, not loaded: what is not asked
    for takes no memory.

    Raises :class:`BadRequest` when the files do not hold ``expected``, all of it and nothing else, in its shapes; names
    in ``optional`` may be missing.
    """

    def __init__(
        self, path: Path, expected: Mapping[str, torch.Tensor], optional: frozenset[str] = frozenset()
    ) -> None:
        self.held: dict[str, tuple[Path, Any, str]] = {}
        for file in tensor_files(path):
            with _readable(file):
                opened = safe_open(file, framework="pt")
                for name in opened.keys():  # noqa: SIM118 - safe_open is not a mapping
                    if name.endswith("position_ids"):
                        continue
                    target = expected.get(plain_name(name))
                    if target is None:
                        raise BadRequest(f"{file} holds {name!r}, which this model has no place for")
                    if (shape := tuple(opened.get_slice(name).get_shape())) != tuple(target.shape):
                        raise BadRequest(f"{file}: {name!r} is {shape}, the configuration says {tuple(target.shape)}")
                    self.held[plain_name(name)] = (file, opened, name)
        if missing := expected.keys() - self.held.keys() - optional:
            raise BadRequest(f"{path} lacks {len(missing)} of {len(expected)} tensors, e.g. {min(missing)}")

    def __call__(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        file, opened, own = self.held[plain_name(name)]
        with _readable(file):
            tensor: torch.Tensor = opened.get_tensor(own)
        return tensor


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise BadRequest(f"{file} is damaged: {error}") from None


def tensor_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint, complete by its index. Raises :class:`BadRequest` naming a missing one."""
    index = path / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    for name in names:
        if not (path / name).is_file():
            raise BadRequest(f"{path} lacks {name}; only safetensors are read")
    return [path / name for name in names]


def plain_name(name: str) -> str:
    """One name for a tensor, whatever transformers version wrote it."""
    if name.startswith("model.") or name == "lm_head.weight":
        # transformers 5 saves LlavaForConditionalGeneration as model.{vision_tower,...} and a top-level lm_head.
        name = name.removeprefix("model.")
        if name.startswith("language_model."):
            name = "language_model.model." + name.removeprefix("language_model.")
        if name == "lm_head.weight":
            name = "language_model.lm_head.weight"
    return name.replace("vision_tower.vision_model.", "vision_tower.").replace("vision_tower.model.", "vision_tower.")
