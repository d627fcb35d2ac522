"""Safetensors in shards: written from a stream, one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llavakit.base.files import write_json

SHARD_BYTES = 5 * 10**9


def whole(tensor: Any) -> torch.Tensor:
    """A tensor that is spread over ranks (a ``DTensor``), gathered on each of them; any other as it is."""
    out: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return out


def write_shards(tensors: Iterable[tuple[str, torch.Tensor]], directory: Path, limit: int = SHARD_BYTES) -> None:
    """Writes named tensors as ``model.safetensors``, or as numbered shards of ``limit`` bytes at most and their index.

    No more than one shard is held; a tensor larger than ``limit`` is a shard of its own.
    """
    written: list[list[str]] = []
    shard: dict[str, torch.Tensor] = {}
    size = total = 0

    def flush() -> None:
        file = directory / f"{len(written)}.part"
        file.touch()
        mode = file.stat().st_mode
        save_file(shard, file, metadata={"format": "pt"})
        file.chmod(mode)  # safetensors leaves it readable for its owner alone
        written.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        length = tensor.numel() * tensor.element_size()
        if shard and size + length > limit:
            flush()
            size = 0
        shard[name] = tensor.detach().cpu().contiguous()
        size, total = size + length, total + length
    flush()
    # Only now is it known how many there are, which is part of their names.
    if len(written) == 1:
        (directory / "0.part").rename(directory / "model.safetensors")
        return
    index: dict[str, str] = {}
    for number, names in enumerate(written):
        name = f"model-{number + 1:05d}-of-{len(written):05d}.safetensors"
        (directory / f"{number}.part").rename(directory / name)
        index |= dict.fromkeys(names, name)
    write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})
