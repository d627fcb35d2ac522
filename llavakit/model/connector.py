"""Connector: patch features -> the language model's embeddings. LLaVA-1.5's two-layer MLP, or LLaVA's one matrix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

ConnectorKind = Literal["mlp2x_gelu", "linear"]


class Connector(nn.Module):
    """``float[..., D]`` -> ``float[..., H]``. Named as transformers' ``LlavaMultiModalProjector`` names it.

    ``linear`` keeps that format exactly: linear_1 = W, the activation the identity, linear_2 a frozen identity.
    """

    def __init__(self, vision_width: int, text_width: int, kind: ConnectorKind = "mlp2x_gelu") -> None:
        super().__init__()
        self.kind = kind
        self.linear_1 = nn.Linear(vision_width, text_width)
        self.linear_2 = nn.Linear(text_width, text_width)
        if kind == "linear":
            with torch.no_grad():
                self.linear_2.weight.copy_(torch.eye(text_width))
                self.linear_2.bias.zero_()
            self.linear_2.requires_grad_(False)

    @property
    def act(self) -> str:
        """``projector_hidden_act`` of the saved configuration."""
        return "gelu" if self.kind == "mlp2x_gelu" else "linear"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.linear_1(features)
        if self.kind == "linear":
            return hidden
        out: torch.Tensor = self.linear_2(nn.functional.gelu(hidden))
        return out


def connector_parameters(vision_width: int, text_width: int, kind: ConnectorKind = "mlp2x_gelu") -> int:
    """Number of trainable parameters, from widths alone."""
    first = vision_width * text_width + text_width
    return first if kind == "linear" else first + text_width * text_width + text_width
