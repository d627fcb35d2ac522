"""LoRA of the original: deltas that are added to the base model's weights as they pass by."""

from __future__ import annotations

from pathlib import Path

import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.convert.tensors import read_all

# Anything but these values changes what the two matrices mean.
_PLAIN = {"peft_type": "LORA", "use_dora": False, "fan_in_fan_out": False, "bias": "none"}
_EMPTY = ("rank_pattern", "alpha_pattern", "modules_to_save")


class Lora:
    """``W + scale * B @ A`` for every weight that the adapter names. A ``[r, in]``, B ``[out, r]``."""

    def __init__(self, directory: Path) -> None:
        config = read_json(directory / "adapter_config.json")
        unlike = [f"{key}={config[key]!r}" for key, value in _PLAIN.items() if config.get(key, value) != value]
        unlike += [f"{key}={config[key]!r}" for key in _EMPTY if config.get(key)]
        if unlike:
            raise BadRequest(f"{directory}/adapter_config.json: {', '.join(unlike)} cannot be merged; only plain LoRA")
        self.base: str | None = config.get("base_model_name_or_path")
        rank, alpha = config["r"], config["lora_alpha"]
        self.scale: float = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        self.pairs: dict[str, dict[str, torch.Tensor]] = {}
        self._left: set[str] = set()
        for name, tensor in read_all(_adapter(directory)).items():
            module, mark, rest = name.removeprefix("base_model.model.").partition(".lora_")
            if not mark or rest[0] not in "AB":
                raise BadRequest(f"{directory}: adapter tensor {name!r} is neither lora_A nor lora_B")
            self.pairs.setdefault(f"{module}.weight", {})[rest[0]] = tensor
        for name, pair in self.pairs.items():
            if pair.keys() != {"A", "B"}:
                raise BadRequest(f"{directory}: {name} has only lora_{min(pair)}")
        self._left = set(self.pairs)

    def merged(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The weight with its delta, computed in float32 and rounded once; as it is when the adapter names it not."""
        pair = self.pairs.get(name)
        if pair is None:
            return weight
        delta = pair["B"].float() @ pair["A"].float()
        if delta.shape != weight.shape:
            raise BadRequest(f"the adapter's {name} is {tuple(delta.shape)}, the base's {tuple(weight.shape)}")
        self._left.discard(name)
        return (weight.float() + self.scale * delta).to(weight.dtype)

    def finish(self) -> None:
        """Raises :class:`BadRequest` when the adapter names a weight that never passed by."""
        if self._left:
            raise BadRequest(f"the base model lacks {len(self._left)} weights of the adapter, e.g. {min(self._left)}")


def _adapter(directory: Path) -> Path:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (directory / name).is_file():
            return directory / name
    raise BadRequest(f"{directory} has an adapter_config.json but no adapter_model.safetensors or .bin")
