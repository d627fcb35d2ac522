"""Where a small tower starts: patches that see well, places that it can tell apart, first layers that look around.

A transformer that starts at random must find out from pictures that neighbours belong together, and a minute holds too
few for it. Here each head of the first layers begins by looking at one neighbour of its patch, as a convolution does
(compare ConViT, arXiv 2103.10697); everything is learned on from here.
"""

from __future__ import annotations

import math
from typing import Any

import torch

_PLACES = 1 / 3  # of the width: channels that say where a patch is; the others say what is on it
_LOUD = 0.7  # of the sines and cosines among those
_SOUND = 0.3  # standard deviation of the others
_WAVES = (0.15, 2.4)  # radians a patch
_SHARP = 4.0  # logits by which a head prefers its neighbour to the patches beside it
_LOOKING = 2  # layers
_AROUND = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]


@torch.no_grad()
def start_tower(vision: Any, pictures: torch.Tensor) -> None:
    """Weights of a CLIP vision model, in place. ``pictures`` float[n, 3, S, S] are some of those that it will see."""
    embeddings, width = vision.embeddings, vision.config.hidden_size
    waves = torch.linspace(*_WAVES, int(width * _PLACES) // 4)
    told = 4 * len(waves)
    embeddings.position_embedding.weight[1:] = 0
    embeddings.position_embedding.weight[1:, :told] = _positions(pictures.shape[-1] // embeddings.patch_size, waves)
    embeddings.patch_embedding.weight.zero_()
    filters = _components(pictures, embeddings.patch_size, (width - told) // 2)
    embeddings.patch_embedding.weight[told : told + len(filters)] = filters
    for layer in vision.encoder.layers[:_LOOKING]:
        _look_around(layer.self_attn, waves)


def _positions(side: int, waves: torch.Tensor) -> torch.Tensor:
    """``[side * side, 4 * waves]``: sines and cosines of a patch's column, then of its row.

    CLIP's own start, noise of 0.02, is lost beside the pixels: for hundreds of steps nothing knows where it is.
    """
    at = torch.arange(side, dtype=torch.float32)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    angles = [axis.flatten()[:, None] * waves for axis in (columns, rows)]
    return _LOUD * torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def _components(pictures: torch.Tensor, patch: int, most: int) -> torch.Tensor:
    """Filters ``[2 * n, 3, patch, patch]``: principal components of the patches, whitened so that fine detail is as
    loud as mean colour (random filters hear little else), each with both signs."""
    patches = (
        pictures.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    )
    centred = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = min(most, len(values))
    components = vectors[:, -kept:] / (values[-kept:] + 1e-3 * values[-1]).sqrt()
    return _SOUND * torch.cat([components, -components], dim=1).T.reshape(-1, 3, patch, patch)


def _look_around(attention: Any, waves: torch.Tensor) -> None:
    """Head h attends to neighbour h of its patch and brings a share of what is there.

    The products of a query's and a key's sines and cosines add up to sum(cos(wave * distance)), which is highest where
    the key lies where the query, turned by the neighbour's offset, says.
    """
    width, heads, count = attention.embed_dim, attention.num_heads, len(waves)
    size, told = width // heads, 4 * count
    # What layer norm multiplies the channels by, and so what a sine is worth to the scores.
    norm = math.sqrt(width / (told * _LOUD**2 / 2 + (width - told) * _SOUND**2))
    used = torch.linspace(0, count - 1, min(count, size // 4)).round().long().tolist()
    contrast = sum(1 - math.cos(waves[u]) for u in used)  # between the neighbour and one beside it
    strength = math.sqrt(_SHARP * math.sqrt(size) / contrast) / (_LOUD * norm)
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query *= 0.3
    key *= 0.3
    for head in range(heads):
        row = head * size
        for axis, offset in enumerate(_AROUND[head % len(_AROUND)]):
            for u in used:
                sine, cosine = 2 * axis * count + u, (2 * axis + 1) * count + u
                turn = torch.tensor([math.cos(waves[u] * offset), math.sin(waves[u] * offset)]) * strength
                key[row, sine] += strength
                key[row + 1, cosine] += strength
                query[row, [sine, cosine]] += turn  # sin(a + b) = cos(b) sin(a) + sin(b) cos(a)
                query[row + 1, [cosine, sine]] += turn * torch.tensor([1.0, -1.0])
                row += 2
    torch.nn.init.orthogonal_(attention.v_proj.weight)
    attention.v_proj.weight[:, :told] *= 0.2
    torch.nn.init.orthogonal_(attention.out_proj.weight, gain=0.5 / norm)
