"""Connectors: tower features -> the language model's embeddings. LLaVA-1.5's two-layer MLP, LLaVA's one matrix, and
what they are compared with: deeper MLPs, and a resampler that compresses every picture to a few vectors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import nn

QUERIES = range(32, 145)
NATIVE = ("linear", "mlp2x_gelu")
"""What transformers' ``LlavaMultiModalProjector`` can hold."""


def _kind(text: str) -> str:
    deep, queries = re.fullmatch(r"mlp([1-9])x_gelu", text), re.fullmatch(r"resampler(\d{2,3})", text)
    if text == "linear" or (deep and int(deep[1]) > 1) or (queries and int(queries[1]) in QUERIES):
        return text
    first, last = QUERIES[0], QUERIES[-1]
    raise ValueError(
        f"no connector {text!r}; there are linear, mlp2x_gelu to mlp9x_gelu, and resamplerN of N = {first} to {last} "
        "vectors an image (resampler64)"
    )


ConnectorKind = Annotated[str, AfterValidator(_kind)]


class Connector(nn.Module):
    """``float[n, N, D]`` -> ``float[n, self.tokens(N), H]``."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def tokens(self, features: int) -> int:
        """How many vectors an image of ``features`` features becomes."""
        return features

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Perceptron(Connector):
    """``linear`` and ``mlpNx_gelu``. Layers are named as transformers' ``LlavaMultiModalProjector`` names them.

    ``linear`` keeps that format exactly: linear_1 = W, the activation the identity, linear_2 a frozen identity.
    """

    linear_1: nn.Linear
    linear_2: nn.Linear

    def __init__(self, vision_width: int, text_width: int, kind: str = "mlp2x_gelu") -> None:
        super().__init__(kind)
        self.depth = 2 if kind == "linear" else int(kind[3])
        for number in range(1, self.depth + 1):
            setattr(self, f"linear_{number}", nn.Linear(vision_width if number == 1 else text_width, text_width))
        if kind == "linear":
            with torch.no_grad():
                self.linear_2.weight.copy_(torch.eye(text_width))
                self.linear_2.bias.zero_()
            self.linear_2.requires_grad_(False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.linear_1(features)
        if self.kind == "linear":
            return hidden
        for number in range(2, self.depth + 1):
            hidden = getattr(self, f"linear_{number}")(nn.functional.gelu(hidden))
        return hidden


class Resampler(Connector):
    """Learned queries that read an image's features through cross-attention (Flamingo's Perceiver resampler).

    ``depth`` blocks in the tower's width: the queries attend to the features and to themselves, then a two-layer
    perceptron; a norm and a matrix lead into the language model's width.
    """

    def __init__(self, vision_width: int, text_width: int, kind: str = "resampler64", depth: int = 3) -> None:
        super().__init__(kind)
        self.queries = nn.Parameter(torch.randn(int(kind.removeprefix("resampler")), vision_width) * 0.02)
        self.blocks = nn.ModuleList(_Block(vision_width) for _ in range(depth))
        self.norm = nn.LayerNorm(vision_width)
        self.project = nn.Linear(vision_width, text_width)

    def tokens(self, features: int) -> int:
        return len(self.queries)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.queries.expand(len(features), -1, -1)
        for block in self.blocks:
            hidden = block(hidden, features)
        out: torch.Tensor = self.project(self.norm(hidden))
        return out


class _Block(nn.Module):
    """Pre-norm cross-attention of ``[n, Q, D]`` queries over themselves and ``[n, N, D]`` features, and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # 64 a head, as in Flamingo; a width that 64 does not divide takes the next smaller size that does.
        self.head = next(size for size in range(min(64, width), 0, -1) if width % size == 0)
        self.norm_queries, self.norm_features, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.q, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        asked = self.norm_queries(queries)
        k, v = self.kv(torch.cat([self.norm_features(features), asked], dim=1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (-1, self.head)).transpose(1, 2) for x in (self.q(asked), k, v))
        read = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        queries = queries + self.out(read)
        out: torch.Tensor = queries + self.mlp(self.norm_mlp(queries))
        return out


def make_connector(vision_width: int, text_width: int, kind: str = "mlp2x_gelu") -> Any:
    """A fresh connector of a kind that :data:`ConnectorKind` allows."""
    made = Resampler if kind.startswith("resampler") else Perceptron
    return made(vision_width, text_width, kind)
