"""Llava: vision tower -> connector -> language model. ``forward`` only scatters features and sums a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llavakit.image.square import Square, normalise
from llavakit.model.attention import packed
from llavakit.model.connector import Connector
from llavakit.model.native import Format
from llavakit.model.towers import VisionTower


@dataclass(frozen=True)
class Batch:
    """Examples packed end to end in one row of T tokens, n images of N features.

    ids         int64[T]      every image placeholder already at its final length
    positions   int64[T]      restart at 0 with each example
    segments    list[int]     lengths of the examples; their sum is T
    predict     int64[S]      positions in the row whose next token is supervised
    targets     int64[S]      those next tokens
    pixels      uint8[n, 3, S, S] or None when no example has an image
    image_at    int64[n * N]  positions in the row that take image features, in order
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: list[int]
    predict: torch.Tensor
    targets: torch.Tensor
    pixels: torch.Tensor | None
    image_at: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in vars(self).items()
        }
        return Batch(**moved)


class Llava(nn.Module):
    """The three parts under their names in transformers' ``llava``. ``language_model`` is any causal LM."""

    def __init__(
        self,
        tower: VisionTower,
        connector: Connector,
        language_model: nn.Module,
        square: Square,
        form: Format = "llava",
    ) -> None:
        super().__init__()
        self.form = form
        self.vision_tower = tower
        self.multi_modal_projector = connector
        self.language_model: Any = language_model
        self.square = square

    @property
    def device(self) -> torch.device:
        return self.multi_modal_projector.device

    @property
    def dtype(self) -> torch.dtype:
        return self.multi_modal_projector.dtype

    @property
    def image_tokens(self) -> int:
        """Positions that an image takes in the row."""
        return self.multi_modal_projector.tokens(self.vision_tower.tokens)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels ``[n, 3, S, S]`` -> language embeddings ``[n, N, H]``."""
        frozen = not any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = self.vision_tower(normalise(pixels, self.square, self.dtype))
        out: torch.Tensor = self.multi_modal_projector(features)
        return out

    def embed(self, ids: torch.Tensor, pixels: torch.Tensor | None, image_at: torch.Tensor) -> torch.Tensor:
        """Token ids ``int64[T]`` -> embeddings ``[T, H]``, image features put at positions ``image_at``."""
        embeddings: torch.Tensor = self.language_model.get_input_embeddings()(ids)
        if pixels is None:
            return embeddings
        features = self.image_features(pixels).flatten(0, 1).to(embeddings.dtype)
        return embeddings.index_copy(0, image_at, features)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Last hidden states ``[T, H]`` of a packed row; examples do not see each other."""
        embeddings = self.embed(batch.ids, batch.pixels, batch.image_at)
        with packed(self.language_model):
            out = self.language_model.base_model(
                inputs_embeds=embeddings[None],
                position_ids=batch.positions[None],
                use_cache=False,
                segments=batch.segments,
            )
        states: torch.Tensor = out.last_hidden_state[0]
        return states

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Last hidden states ``[..., H]`` -> logits ``[..., V]``, as the language model itself forms them."""
        out: torch.Tensor = self.language_model.get_output_embeddings()(states)
        cap = getattr(self.language_model.config, "final_logit_softcapping", None)
        return torch.tanh(out / cap) * cap if cap else out

    def forward(self, batch: Batch, chunk: int = 4096) -> torch.Tensor:
        """Sum (not mean) of the cross-entropy over supervised tokens, float32 scalar.

        The head runs at supervised positions only, ``chunk`` of them at a time; no full logits tensor exists.
        """
        states = self.hidden(batch)[batch.predict]
        total = states.new_zeros((), dtype=torch.float32)
        for part, targets in zip(states.split(chunk), batch.targets.split(chunk), strict=True):
            total = total + nn.functional.cross_entropy(self.logits(part).float(), targets, reduction="sum")
        return total
