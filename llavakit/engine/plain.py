"""The same shared prefixes and rows through transformers' own cache, for decoders that are not built like Llama's.

A prefix is still computed once, but every row holds a copy of it, padded on the left to the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from llavakit.engine.attend import Chain, Shared, length


class Listed:
    """Of each row what it shares, and how many tokens it has of its own."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.chains: list[Chain] = []

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def totals(self) -> list[int]:
        """All tokens of each row."""
        return [length(chain) + own for chain, own in zip(self.chains, self.lengths, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was; the others leave."""
        self.lengths = [self.lengths[row] for row in rows]
        self.chains = [self.chains[row] for row in rows]


class PlainRows(Listed):
    """Rows of one transformers cache: keys and values ``float[n, heads, M, d]`` of each layer, ends together."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        longest = max(self.totals, default=0)
        chosen = torch.tensor(rows, dtype=torch.long)
        self.layers = [
            tuple(t[chosen.to(t.device), :, t.shape[2] - longest :] for t in pair)  # type: ignore[misc]
            for pair in self.layers
        ]

    def own(self, row: int) -> Shared:
        count = self.lengths[row]
        sides = zip(*self.layers, strict=True)
        keys, values = (torch.stack([t[row, :, t.shape[2] - count :] for t in side]) for side in sides)
        return Shared(keys, values)

    def cache(self) -> DynamicCache:
        return _cache(self.layers)


class Plain:
    """A causal language model of any family, with the methods of :class:`~llavakit.engine.decoder.Decoder`."""

    def __init__(self, language_model: Any) -> None:
        self.model = language_model
        self.embeddings: Any = language_model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        return self.embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.weight.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embeddings(ids)

    def share(self, chain: Chain, embeddings: torch.Tensor) -> Shared:
        _, layers = self._prefill(chain, embeddings)
        past = length(chain)
        keys, values = (torch.stack([t[0, :, past:] for t in side]) for side in zip(*layers, strict=True))
        return Shared(keys, values)

    def admit(self, rows: PlainRows, chains: Sequence[Chain], embeddings: Sequence[torch.Tensor]) -> torch.Tensor:
        logits = []
        for chain, part in zip(chains, embeddings, strict=True):
            out, layers = self._prefill(chain, part)
            logits.append(out)
            rows.chains.append(chain)
            rows.lengths.append(len(part))
            rows.layers = [_joined(pair) for pair in zip(rows.layers, layers, strict=True)] if rows.layers else layers
        return torch.cat(logits)

    def step(self, rows: PlainRows, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.tensor(rows.totals, device=self.device)[:, None]
        rows.lengths = [count + 1 for count in rows.lengths]
        longest = max(rows.totals)
        mask = torch.arange(longest, device=self.device) >= longest - 1 - positions
        cache = rows.cache()
        logits = self._run(self.embed(ids)[:, None], cache, mask, positions)
        rows.layers = _layers(cache)
        return logits

    def rows(self) -> PlainRows:
        return PlainRows()

    def _prefill(self, chain: Chain, embeddings: torch.Tensor) -> tuple[torch.Tensor, list[Any]]:
        past, count = length(chain), len(embeddings)
        layers: list[Any] = []
        if chain:
            sides = (torch.cat([getattr(shared, name) for shared in chain], 2)[:, None] for name in ("keys", "values"))
            layers = list(zip(*sides, strict=True))
        cache = _cache(layers)
        mask = torch.ones(1, past + count, dtype=torch.bool, device=self.device)
        positions = torch.arange(past, past + count, device=self.device)[None]
        return self._run(embeddings[None], cache, mask, positions), _layers(cache)

    def _run(self, x: torch.Tensor, cache: DynamicCache, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        out = self.model(
            inputs_embeds=x,
            past_key_values=cache,
            attention_mask=mask.long(),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]


def _cache(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    cache = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def _layers(cache: Any) -> list[Any]:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _joined(pair: Any) -> Any:
    """Keys and values of rows, padded on the left to one length, and another row's."""
    (k1, v1), (k2, v2) = pair
    longest = max(k1.shape[2], k2.shape[2])

    def padded(t: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(t, (0, 0, longest - t.shape[2], 0))

    return torch.cat([padded(k1), padded(k2)]), torch.cat([padded(v1), padded(v2)])
