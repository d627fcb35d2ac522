"""Where a connector between small backbones starts: at sending each patch to the words for what is there.

Without this a patch is no word of the language model, nothing that looks for a word finds it, and no gradient says
which of the patches was meant.
"""

from __future__ import annotations

import torch

from llavakit.base.log import progress
from llavakit.model.connector import Perceptron

_STEPS, _PATCHES, _RATE = 400, 2048, 3e-3


@torch.enable_grad()
def start_connector(connector: Perceptron, features: torch.Tensor, words: torch.Tensor, seed: int) -> None:
    """A regression by squared error, in seconds. ``features`` float[n, D] of patches; ``words`` float[n, H]: the sum of
    the embeddings of each one's words, or of its picture's caption, but for the first channel: the same for all."""
    last = connector.linear_1 if connector.kind == "linear" else getattr(connector, f"linear_{connector.depth}")
    optimiser = torch.optim.AdamW(connector.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    chance = torch.Generator().manual_seed(seed)
    for step in progress(range(_STEPS), desc="connector", unit="step"):
        optimiser.param_groups[0]["lr"] = _RATE * min(1.0, (step + 1) / 20) * (1 - step / _STEPS)
        chosen = torch.randint(len(features), (_PATCHES,), generator=chance)
        apart = connector(features[chosen])[:, 1:] - words[chosen, 1:]
        optimiser.zero_grad()
        apart.square().sum(1).mean().backward()
        optimiser.step()
    optimiser.zero_grad()
    with torch.no_grad():
        last.weight[0] = 0
        last.bias[0] = words[0, 0]
