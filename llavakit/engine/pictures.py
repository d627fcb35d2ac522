"""A prompt's tokens by identity, pictures included, and their embeddings; the tower runs once for each picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from llavakit.engine.cache import Features, pixel_hash
from llavakit.engine.request import Request
from llavakit.model.encode import Example
from llavakit.model.llava import Llava


class Pictures:
    """What the engine knows of pictures: which are the same, and their features."""

    def __init__(self, model: Llava, image_id: int, features: Features) -> None:
        self.model, self.image_id, self.features = model, image_id, features

    def identify(self, request: Request) -> None:
        """Sets ``request.keys`` int64[L]: a token's id, or for an image token a negative number that stands for this
        feature of this picture; and ``request.hashes``, one for each square of pixels."""
        example = request.example
        request.hashes = [pixel_hash(square) for square in example.pixels]
        request.keys = example.ids.copy()
        square, feature = self._take(example)
        marks = np.array(request.hashes, dtype=np.uint64)[square] + feature.astype(np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        request.keys[example.ids == self.image_id] = -1 - (marks >> np.uint64(1)).astype(np.int64)

    def embed(
        self, request: Request, start: int, stop: int, embed: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Embeddings ``float[stop - start, hidden]`` of a prompt's tokens; ``embed`` does it for text."""
        ids = request.example.ids
        out = embed(torch.from_numpy(ids[start:stop]).to(self.model.device))
        is_image = ids == self.image_id
        at = np.flatnonzero(is_image[start:stop])
        if not len(at):
            return out
        first = int(is_image[:start].sum())
        square, feature = (part[first : first + len(at)] for part in self._take(request.example))
        used = np.unique(square)
        found = self._features(request, used)
        flat = np.searchsorted(used, square) * found.shape[1] + feature
        rows = found.flatten(0, 1).index_select(0, torch.from_numpy(flat).to(out.device))
        return out.index_copy(0, torch.from_numpy(at).to(out.device), rows.to(out.dtype))

    def _take(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """Of each image token: its square of pixels, and its feature within that."""
        each = self.model.vision_tower.tokens
        tokens = np.arange(len(example.pixels) * each)
        return tokens // each, tokens % each

    def _features(self, request: Request, squares: np.ndarray) -> torch.Tensor:
        """``float[n, N, hidden]`` of some of the squares; those that are new go through the tower together."""
        found = {int(i): self.features.get(request.hashes[i]) for i in squares}
        new = [i for i, value in found.items() if value is None]
        if new:
            pixels = torch.from_numpy(request.example.pixels[new]).to(self.model.device)
            for i, value in zip(new, self.model.image_features(pixels), strict=True):
                found[i] = value
                self.features.put(request.hashes[i], value.clone())
        return torch.stack([value for value in found.values() if value is not None])
