"""A prompt's tokens by identity, pictures included, and their embeddings; the tower runs once for each picture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from llavakit.engine.cache import Features, pixel_hash
from llavakit.engine.request import Request
from llavakit.model.encode import Example
from llavakit.model.llava import Llava


class Pictures:
    """What the engine knows of pictures: which are the same, and their features."""

    def __init__(self, model: Llava, image_id: int, features: Features, packed: AbstractContextManager[None]) -> None:
        """``packed``: within it the tower runs."""
        self.model, self.image_id, self.features, self.packed = model, image_id, features, packed

    def identify(self, request: Request) -> None:
        """Sets ``request.keys`` int64[L]: a token's id, or for an image token a negative number that stands for this
        feature of this picture; and ``request.hashes``, one for each square of pixels."""
        example = request.example
        request.hashes = [pixel_hash(square) for square in example.pixels]
        request.keys = example.ids.copy()
        square, feature = self._take(example)
        # The last one stands for a row end, which belongs to no square.
        hashes = np.array([*request.hashes, 0], dtype=np.uint64)
        marks = hashes[square] + feature.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
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
        rows = out.new_empty(len(at), out.shape[1])
        of_picture = square >= 0
        if of_picture.any():
            used, nth = np.unique(square[of_picture], return_inverse=True)
            found = self._features(request, used)
            flat = torch.from_numpy(nth * found.shape[1] + feature[of_picture])
            rows[torch.from_numpy(of_picture)] = found.flatten(0, 1)[flat.to(out.device)].to(out.dtype)
        if not of_picture.all():
            end = self.model.image_newline
            assert end is not None, "a codec of tiles belongs to a model with a row end"
            rows[torch.from_numpy(~of_picture)] = end.to(out.dtype)
        return out.index_copy(0, torch.from_numpy(at).to(out.device), rows)

    def _take(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """Of each image token: its square of pixels, and its feature within that; (-1, 0) for a row end."""
        if example.take is not None:
            return example.take[:, 0], example.take[:, 1]
        each = self.model.image_tokens
        tokens = np.arange(len(example.pixels) * each)
        return tokens // each, tokens % each

    def _features(self, request: Request, squares: np.ndarray) -> torch.Tensor:
        """``float[n, N, hidden]`` of some of the squares; those that are new go through the tower together."""
        found = {int(i): self.features.get(request.hashes[i]) for i in squares}
        new = [i for i, value in found.items() if value is None]
        if new:
            pixels = torch.from_numpy(request.example.pixels[new]).to(self.model.device)
            with self.packed:
                values = self.model.image_features(pixels)
            for i, value in zip(new, values, strict=True):
                found[i] = value
                self.features.put(request.hashes[i], value.clone())
        return torch.stack([value for value in found.values() if value is not None])
