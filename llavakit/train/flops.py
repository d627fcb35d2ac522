"""How many floating-point operations a step needs: those of the model, not those of the program. What a program
computes twice (checkpointing) or for nothing (padding) does not count, so a faster program has a higher share of the
peak. Causal attention counts the half that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llavakit.model.lean import Recompute
from llavakit.model.llava import Batch, Llava


@dataclass(frozen=True)
class Work:
    """What goes through the model: ``tokens`` of the language model, the sum of ``squares`` of the samples' lengths,
    ``supervised`` positions, and ``pictures`` (tiles, where there are tiles)."""

    tokens: float
    squares: float
    supervised: float
    pictures: float

    @classmethod
    def of(cls, rows: Sequence[Batch]) -> Work:
        lengths = [n for row in rows for n in row.segments]
        return cls(
            tokens=sum(lengths),
            squares=sum(n * n for n in lengths),
            supervised=sum(len(row.predict) for row in rows),
            pictures=sum(len(row.pixels) for row in rows if row.pixels is not None),
        )

    def __mul__(self, times: float) -> Work:
        return Work(*(times * value for value in (self.tokens, self.squares, self.supervised, self.pictures)))


@dataclass(frozen=True)
class Cost:
    """FLOPs of one unit of each kind of :class:`Work`, forward and backward, for the parts that train."""

    token: float
    square: float
    supervised: float
    picture: float
    forward: float
    """Of ``token``, what the layers' products take forward, once."""

    @classmethod
    def of(cls, model: Llava) -> Cost:
        """Of a model whose parameters say what trains; it may be on the meta device."""
        language, tower, connector = model.language_model, model.vision_tower, model.multi_modal_projector
        head = language.get_output_embeddings()
        tower_trains = any(p.requires_grad for block in tower.layers for p in block.parameters())
        connector_trains = any(p.requires_grad for p in connector.parameters())
        # The gradient goes through the whole language model, whatever trains, unless nothing below it does.
        inner = _linears(language.base_model)
        patches = (tower.config.image_size // tower.config.patch_size) ** 2
        seen = patches + tower.specials
        through_tower = 3.0 if tower_trains else 1.0
        patch = 3 * tower.config.patch_size**2 * tower.config.hidden_size
        return cls(
            token=sum(2 * m.in_features * m.out_features * (2 + _trains(m)) for m in inner),
            square=3 * 2 * _attention_width(language.config) * language.config.num_hidden_layers,
            supervised=2 * head.in_features * head.out_features * (2 + _trains(head)),
            picture=(
                sum(2 * m.in_features * m.out_features * seen for b in tower.layers for m in _linears(b))
                + 4 * seen**2 * tower.config.hidden_size * len(tower.layers)
                + 2 * patches * patch
            )
            * through_tower
            + sum(2 * m.in_features * m.out_features for m in _linears(connector))
            * tower.tokens
            * (1 + tower_trains + connector_trains),
            forward=sum(2 * m.in_features * m.out_features for m in inner),
        )

    def __call__(self, work: Work) -> float:
        return (
            self.token * work.tokens
            + self.square * work.squares
            + self.supervised * work.supervised
            + self.picture * work.pictures
        )

    def again(self, work: Work, recompute: Recompute) -> float:
        """What a program computes a second time that keeps less of the language model's layers."""
        attention = self.square / 3 * work.squares
        return {"none": 0.0, "products": attention, "layers": self.forward * work.tokens + attention}[recompute]


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def _trains(linear: nn.Linear) -> bool:
    return bool(linear.weight.requires_grad)


def _attention_width(config: Any) -> int:
    heads = int(config.num_attention_heads)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads * int(size)
