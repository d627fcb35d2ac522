"""Llava: vision tower -> connector -> language model. ``forward`` only scatters features and sums a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.image.square import Square, normalise
from llavakit.model.connector import Connector
from llavakit.model.features import FeatureCache
from llavakit.model.fused import cross_entropy
from llavakit.model.lean import packed_states
from llavakit.model.native import Format
from llavakit.model.towers import VisionTower


class Member(NamedTuple):
    """An example of a row: its own id, and the name of its source in the mixture."""

    id: str
    source: str


@dataclass(frozen=True)
class Batch:
    """Examples packed end to end in one row of T tokens, n images (or tiles) of N features, K image tokens.

    ids         int64[T]      every image placeholder already at its final length
    positions   int64[T]      restart at 0 with each example
    segments    list[int]     lengths of the examples; their sum is T
    predict     int64[S]      positions in the row whose next token is supervised
    targets     int64[S]      those next tokens
    pixels      uint8[n, 3, S, S] or None when no example has an image
    image_at    int64[K]  positions in the row that take image features, in order
    take        int64[K, 2], which: image and feature within it, or (-1, 0) for a row end; None: all, in order
    members     whose segment it is, in order; empty where nobody asks
    asked       of each segment, those of ``predict`` that lie in it, counted from its start; None: to be found, for
                which the program waits for a GPU
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: list[int]
    predict: torch.Tensor
    targets: torch.Tensor
    pixels: torch.Tensor | None
    image_at: torch.Tensor
    take: torch.Tensor | None = None
    members: tuple[Member, ...] = ()
    asked: list[list[int]] | None = None

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
        self.features: FeatureCache | None = None
        """Where features of the tower are kept while it is frozen."""

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

    @property
    def image_newline(self) -> nn.Parameter | None:
        """The learned row end ``float[H]`` of tiled pictures; None in a model that sees squares only.

        It lives in the connector: it is frozen, trains, and has its rate together with it.
        """
        return getattr(self.multi_modal_projector, "image_newline", None)

    def check_tiles(self) -> None:
        """Raises :class:`BadRequest` where image features are not a square of patches, as tiles need."""
        tower = self.vision_tower
        if tower.keep_cls or tower.registers or self.form != "llava":
            raise BadRequest(
                "transformers' llava_next has no place for CLS features (keep_cls), register tokens or other "
                "connectors (model.format) among tiles"
            )

    def add_newline(self, seed: int = 0) -> None:
        """Gives the model a fresh row end, drawn as transformers draws it."""
        width = self.language_model.config.hidden_size
        drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed), device="cpu") * width**-0.5
        # A model that is still to be filled gets it now: no checkpoint holds a fresh one.
        newline = nn.Parameter(drawn.to("cpu" if self.device.type == "meta" else self.device, self.dtype))
        self.multi_modal_projector.register_parameter("image_newline", newline)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels ``[n, 3, S, S]`` -> language embeddings ``[n, N, H]``."""
        frozen = not any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        if frozen and self.features is not None:
            features = self.features(pixels, self._seen)
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                features = self._seen(pixels)
        out: torch.Tensor = self.multi_modal_projector(features)
        return out

    def _seen(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.vision_tower(normalise(pixels, self.square, self.dtype))
        return features

    def embed(
        self, ids: torch.Tensor, pixels: torch.Tensor | None, image_at: torch.Tensor, take: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Token ids ``int64[T]`` -> embeddings ``[T, H]``, image features put at positions ``image_at``."""
        embeddings: torch.Tensor = self.language_model.get_input_embeddings()(ids)
        if pixels is None:
            return embeddings
        features = self.image_features(pixels)
        features = (features.flatten(0, 1) if take is None else self._arranged(features, take)).to(embeddings.dtype)
        return embeddings.index_copy(0, image_at, features)

    def _arranged(self, features: torch.Tensor, take: torch.Tensor) -> torch.Tensor:
        """Features of tiles ``[n, N, H]`` -> those of the image tokens ``[K, H]``, row ends among them."""
        end = self.image_newline
        if end is None:
            raise BadRequest("pictures come as tiles, and this model has no row end; call its add_newline() first")
        image, feature = take.unbind(1)
        # A row end gathers feature 0 and where() drops it, gradient and all; so nothing waits for the device to count
        # row ends, and no feature but that one is gathered twice: the sums of backward are the same in any order.
        chosen = features.flatten(0, 1).index_select(0, (image * features.shape[1] + feature).clamp(min=0))
        return torch.where(image[:, None] < 0, end.to(chosen.dtype), chosen)

    def hidden(self, batch: Batch, predicting: bool = False) -> torch.Tensor:
        """Last hidden states ``[T, H]`` of a packed row, or ``[S, H]`` of its positions ``predict`` alone; examples do
        not see each other."""
        embeddings = self.embed(batch.ids, batch.pixels, batch.image_at, batch.take)
        return packed_states(
            self.language_model,
            batch.positions,
            batch.segments,
            batch.predict if predicting else None,
            batch.asked,
            inputs_embeds=embeddings[None],
        )

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Last hidden states ``[..., H]`` -> logits ``[..., V]``, as the language model itself forms them."""
        out: torch.Tensor = self.language_model.get_output_embeddings()(states)
        cap = getattr(self.language_model.config, "final_logit_softcapping", None)
        return torch.tanh(out / cap) * cap if cap else out

    def forward(
        self, batch: Batch, chunk: int = 1024, by_token: Callable[[torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """Sum (not mean) of the cross-entropy over supervised tokens, float32 scalar.

        The head runs at supervised positions only, ``chunk`` of them at a time; no full logits tensor exists.
        ``by_token`` is given the losses that were summed, float32[S] in all and without gradient. (A list to fill would
        not do: a sharded module hands ``forward`` copies of lists.)
        """
        states = self.hidden(batch, predicting=True)
        total = states.new_zeros((), dtype=torch.float32)
        for part, targets in zip(states.split(chunk), batch.targets.split(chunk), strict=True):
            losses = cross_entropy(self.logits(part), targets)
            if by_token is not None:
                by_token(losses.detach())
            total = total + losses.sum()
        return total
