"""The memory of a training step, by kind, without a byte of it: the step runs on tensors that have only a shape.

What autograd keeps depends on the model, the precision and the kernels; so the real forward and backward run, under
torch's fake tensors, and every tensor is counted from its birth to its end. The language model stands in with a few of
its layers, since they are all alike; the rest is a straight line.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llavakit.model.llava import Batch, Llava


@dataclass(frozen=True)
class Row:
    """The largest row that goes through the model at once: tokens in ``segments``, ``supervised`` positions,
    ``pictures`` (or tiles) that give ``image_tokens`` in all."""

    segments: tuple[int, ...]
    supervised: int
    pictures: int
    image_tokens: int
    tiled: bool = False


@dataclass(frozen=True)
class Kept:
    """Bytes that a row keeps from forward to backward, beside weights, their gradients and the optimiser's states.
    ``copies``: of weights, in the precision of the products; ``logits``: all that is as wide as the vocabulary;
    ``passing``: what there is more of at the worst moment."""

    copies: float
    activations: float
    logits: float
    passing: float

    @property
    def total(self) -> float:
        return self.copies + self.activations + self.logits + self.passing

    def along(self, other: Kept, times: float) -> Kept:
        """The straight line from here through ``other``, at ``times`` the way; what passes does not grow with it."""
        copies, activations, logits = (a + times * (b - a) for a, b in zip(_kinds(self), _kinds(other), strict=True))
        return Kept(copies, activations, logits, other.passing)


def _kinds(kept: Kept) -> tuple[float, float, float]:
    return kept.copies, kept.activations, kept.logits


def step_memory(model: Llava, row: Row, precision: torch.dtype, cast_weights: bool = False) -> Kept:
    """What a row keeps of ``model``, whose parameters say what trains and lie on the meta device.

    ``cast_weights``: weights come in ``precision`` already, as from FSDP; else autocast makes copies of them.
    """
    layers = model.language_model.base_model.layers
    # Some models have two kinds of layer, by turns.
    few = len(set(getattr(model.language_model.config, "layer_types", None) or ["alike"]))
    if len(layers) <= 5 * few:
        return _measure(model, row, precision, cast_weights)
    ends = []
    # Layers of their own: one that has been the last may have been taught so.
    for some in (layers[:few], layers[few : 5 * few]):
        model.language_model.base_model.layers = some
        ends.append(_measure(model, row, precision, cast_weights))
    model.language_model.base_model.layers = layers
    return ends[0].along(ends[1], (len(layers) / few - 1) / 3)


def _measure(model: Llava, row: Row, precision: torch.dtype, cast_weights: bool) -> Kept:
    autocast = precision != torch.float32 and not cast_weights
    held = precision if cast_weights else torch.float32
    # The batch is real: kernels may look where its segments lie and what is supervised.
    batch = _batch(model, row)
    model.train()
    with FakeTensorMode(allow_non_fake_inputs=True), _filled(model, held):
        # Most is held in a row that is not the step's first: the gradients are there already.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        with Live(model) as live:
            with torch.autocast("cpu", precision, enabled=autocast):
                loss = model(batch)
            kept = dict(live.now)
            if loss.requires_grad:
                loss.backward()
    return Kept(**kept, passing=live.peak - sum(kept.values()))


class Live(TorchDispatchMode):
    """Counts the bytes of every storage that is born under it, until that is freed; not those of ``model``'s own
    parameters and gradients."""

    def __init__(self, model: Llava) -> None:
        super().__init__()
        own = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
        self.weights = {p.untyped_storage()._cdata for p in model.parameters()}
        self.known = {tensor.untyped_storage()._cdata for tensor in own}
        self.words = model.language_model.get_output_embeddings().weight.shape[0]
        self.born: dict[int, tuple[str, int]] = {}
        self.now = dict.fromkeys(("copies", "activations", "logits"), 0)
        self.total = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor, func, args)
        return out

    def _see(self, tensor: torch.Tensor, func: Any, args: Any) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known or key in self.born:
            return
        kind = self._kind(tensor, func, args)
        self.born[key] = (kind, storage.nbytes())
        self._add(kind, storage.nbytes())
        weakref.finalize(storage, self._end, key)

    def _kind(self, tensor: torch.Tensor, func: Any, args: Any) -> str:
        if func is torch.ops.aten._to_copy.default and args[0].untyped_storage()._cdata in self.weights:
            return "copies"
        return "logits" if tensor.ndim == 2 and tensor.shape[1] == self.words else "activations"

    def _add(self, kind: str, size: int) -> None:
        self.now[kind] += size
        self.total += size
        self.peak = max(self.peak, self.total)

    def _end(self, key: int) -> None:
        kind, size = self.born.pop(key)
        self.now[kind] -= size
        self.total -= size


@contextlib.contextmanager
def _filled(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it the tensors of ``model`` are fake ones on a CPU, whose kernels keep what a GPU's do: no scores."""
    made: dict[int, torch.Tensor] = {}
    before = []
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            before.append((table, dict(table)))
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    kind = dtype if tensor.is_floating_point() else tensor.dtype
                    fake = torch.empty(tensor.shape, dtype=kind, device="cpu")
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
                table[name] = made[id(tensor)]  # type: ignore[assignment]
    try:
        yield
    finally:
        for table, tensors in before:
            table.update(tensors)  # type: ignore[arg-type]


def _batch(model: Llava, row: Row) -> Batch:
    tokens, side = sum(row.segments), model.square.size
    zeros = torch.zeros(tokens, dtype=torch.long)
    firsts = torch.arange(row.image_tokens)
    return Batch(
        ids=zeros,
        positions=torch.cat([torch.arange(n) for n in row.segments]),
        segments=list(row.segments),
        predict=torch.arange(tokens - row.supervised, tokens),
        targets=zeros[: row.supervised],
        pixels=torch.zeros(row.pictures, 3, side, side, dtype=torch.uint8) if row.pictures else None,
        image_at=firsts,
        take=torch.stack([firsts * 0, firsts * 0], 1) if row.tiled else None,
    )
