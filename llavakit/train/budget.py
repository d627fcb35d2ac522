"""Memory of one GPU in training, by kind, for each way of sharing a model among GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from llavakit.data.lengths import Sizes
from llavakit.data.pack import pack
from llavakit.image.anyres import AnyRes
from llavakit.model.lean import arrange_layers
from llavakit.model.llava import Llava
from llavakit.model.parts import count
from llavakit.model.quantise import layer_linears
from llavakit.train.memory import Kept, Row, step_memory
from llavakit.train.stage import Stage

NF4 = 0.516
"""Bytes of a weight: half a byte, a byte for the scale of 64 of them, and 4 for that of 256 such scales."""
FETCHED = 2
"""Layers that FSDP has whole at once: the one that works, and the next, which is under way."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU. ``copies``: weights in the precision of the products, of the whole model or of the layers that
    are gathered at a time."""

    weights: float
    copies: float
    gradients: float
    optimiser: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


class Budget:
    """The memory of one stage, whose ``model`` is on the meta device and prepared: what trains, trains."""

    def __init__(self, model: Llava, stage: Stage, row: Row, precision: torch.dtype) -> None:
        self.model = model
        arrange_layers(model.language_model, stage.checkpoint, compiled=False)
        self.row = row
        self.precision = precision
        packed = layer_linears(model.language_model).values() if stage.lora and stage.lora.base == "nf4" else []
        self.packed = sum(m.weight.numel() for m in packed if not m.weight.requires_grad)
        self.parameters, self.trainable = count(model), count(model, trainable=True)
        self.size = 2 if stage.weights == "bfloat16" else 4
        self.states = sum(_states(p, name, stage) for name, p in model.named_parameters() if p.requires_grad)
        self._kept: dict[bool, Kept] = {}

    def whole(self) -> Memory:
        """Every GPU has all of it."""
        kept = self._row(cast=self.size == self.precision.itemsize)
        # Weights in 4 bits are unpacked for a product and at once forgotten.
        copies = kept.copies * (1 - self.packed / self.parameters) if self.packed else kept.copies
        return Memory(
            self.size * (self.parameters - self.packed) + NF4 * self.packed,
            copies,
            self.size * self.trainable,
            self.states,
            kept.activations + kept.passing,
            kept.logits,
        )

    def sharded(self, ranks: int) -> Memory:
        """FSDP over ``ranks`` GPUs; weights in 4 bits are not shared out."""
        kept, size = self._row(cast=True), self.precision.itemsize
        layers = [*self.model.vision_tower.layers, *self.model.language_model.base_model.layers]
        largest = max(layers, key=count)
        root = self.parameters - sum(map(count, layers))
        gathered = root + FETCHED * (0 if self.packed else count(largest))
        reduced = count(largest, trainable=True)
        return Memory(
            4 * (self.parameters - self.packed) / ranks + NF4 * self.packed,
            size * gathered,
            4 * self.trainable / ranks + (size + 4) * reduced,
            self.states / ranks,
            kept.activations + kept.passing,
            kept.logits,
        )

    def _row(self, cast: bool) -> Kept:
        if cast not in self._kept:
            self._kept[cast] = step_memory(self.model, self.row, self.precision, cast)
        return self._kept[cast]


def _states(parameter: nn.Parameter, name: str, stage: Stage) -> int:
    """AdamW keeps two moments, Muon one for each matrix inside the layers; all float32. In 8 bits they have a scale for
    every 256, where they are many; else they are as their parameter is."""
    if stage.optimiser == "adamw8bit":
        number = parameter.numel()
        if number < 4096 or number % 256:
            return 2 * number * (2 if stage.weights == "bfloat16" else 4)
        return 2 * (number + 4 * number // 256)
    matrix = stage.optimiser == "muon" and parameter.ndim == 2 and ".layers." in name
    return parameter.numel() * (4 if matrix else 8)


def largest_row(sizes: Sizes, stage: Stage, square: int) -> Row:
    """What the fullest row holds when ``sizes`` are packed step by step: the most tokens, answers and pictures of any
    row, together. One square (or tile) has ``square`` tokens."""
    rows: list[list[int]] = []
    for first in range(0, len(sizes.tokens), stage.batch_size):
        batch = slice(first, first + stage.batch_size)
        rows += [[first + index for index in row] for row in pack(sizes.tokens[batch].tolist(), stage.row_tokens)]
    fullest = max(rows, key=lambda row: int(sizes.tokens[row].sum()))
    segments = tuple(int(n) for n in sizes.tokens[fullest])
    tiled = isinstance(stage.image, AnyRes)
    pictures = _most(sizes.pictures, rows)
    pictures = pictures if tiled else min(pictures, sum(segments) // square)
    supervised = min(_most(sizes.supervised, rows), sum(segments) - len(segments))
    return Row(segments, max(1, supervised), pictures, min(pictures * square, sum(segments)), tiled)


def _most(values: Any, rows: Sequence[Sequence[int]]) -> int:
    return max(int(values[row].sum()) for row in rows)
