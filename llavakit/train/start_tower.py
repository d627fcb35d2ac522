"""Where a small tower starts: patches that see edges, places that it can tell apart, layers that look around.

A transformer that starts at random must find out from pictures that neighbours belong together and that shapes are made
of edges, and a minute holds too few for it. Here the first layer begins as histograms of oriented edges (compare HOG,
Dalal and Triggs 2005), and each head of the next ones looks at one neighbour of its patch, as a convolution does
(compare ConViT, arXiv 2103.10697). All is learned on from here but the patches' filters, which are best left alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch

_PLACES, _PIXELS = 1 / 4, 5 / 12  # of the width: channels for where a patch is and for its pixels; the rest for edges
_LOUD = 0.7  # of the sines and cosines among the first
_SOUND = 0.24  # standard deviation of the second
_WAVES = (0.15, 2.4)  # radians a patch
_SHARP = 4.0  # logits by which a head prefers its neighbour to the patches beside it
_LOOKING = slice(1, 3)  # layers
_AROUND = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]

# What is looked for at grid x grid points of a patch, in so many directions, in one mixture of the colours: edges, and
# lines of either sign.
_EDGES = (
    ("edge", (1.0, 1.0, 1.0), 4, 12),
    ("line", (1.0, 1.0, 1.0), 4, 12),
    ("edge", (2.0, -2.0, 0.0), 3, 8),
    ("edge", (-1.0, -1.0, 2.0), 3, 8),
)
_BLUR, _WAVE = 1.7, 5.5  # of the filters that find them: standard deviation and wavelength, in pixels
_STRONG, _FAINT = 3.0, -1.5  # how loud edges are before the nonlinearity, and what keeps noise below it


@torch.no_grad()
def start_tower(vision: Any, pictures: torch.Tensor) -> None:
    """Weights of a CLIP vision model, in place. ``pictures`` float[n, 3, S, S] are some of those that it will see."""
    embeddings, width = vision.embeddings, vision.config.hidden_size
    waves = torch.linspace(*_WAVES, int(width * _PLACES) // 4)
    told = 4 * len(waves)
    embeddings.position_embedding.weight[1:] = 0
    embeddings.position_embedding.weight[1:, :told] = _positions(pictures.shape[-1] // embeddings.patch_size, waves)
    filters = _components(pictures, embeddings.patch_size, int(width * _PIXELS))
    embeddings.patch_embedding.weight.zero_()
    embeddings.patch_embedding.weight[told : told + len(filters)] = filters
    first = vision.encoder.layers[0]
    first.self_attn.out_proj.weight *= 0.1
    seen = vision.pre_layrnorm(vision.embeddings(pictures))[:, 1:].flatten(0, 1)
    _find_edges(first.mlp, first.layer_norm2(seen), filters, told)
    for layer in vision.encoder.layers[_LOOKING]:
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
    """Filters ``[n, 3, patch, patch]``: principal components of the patches, whitened so that fine detail is as loud as
    mean colour (random filters hear little else)."""
    patches = (
        pictures.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    )
    centred = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = min(most, len(values))
    components = vectors[:, -kept:] / (values[-kept:] + 1e-3 * values[-1]).sqrt()
    return _SOUND * components.T.reshape(-1, 3, patch, patch)


def _find_edges(mlp: Any, seen: torch.Tensor, filters: torch.Tensor, told: int) -> None:
    """Its inner units find edges at points of the patch; what it adds, in the channels that are left, are the main
    directions of how much of each edge there is in each quarter. ``seen`` float[n, D] is what it will get."""
    pixels = slice(told, told + len(filters))
    flat = filters.flatten(1)
    wanted, quarters = zip(*(_edges(*edges, filters.shape[-1]) for edges in _EDGES), strict=True)
    # The channels hold a patch in the filters' terms: an edge is told to them in the same.
    units = torch.cat(wanted) @ flat.T / flat.square().sum(1)
    units = units[: mlp.fc1.out_features]
    found = seen[:, pixels] @ units.T
    gain = _STRONG / (found.std(0) + 1e-6)
    count = len(units)
    mlp.fc1.weight[:count] = 0
    mlp.fc1.weight[:count, pixels] = units * gain[:, None]
    mlp.fc1.bias[:count] = _FAINT - found.mean(0) * gain
    active = torch.nn.functional.gelu(found * gain + mlp.fc1.bias[:count])
    summed = torch.block_diag(*quarters)[:, :count]
    histogram = active @ summed.T
    usual, spread = histogram.mean(0), histogram.std(0) + 1e-6
    even = (histogram - usual) / spread
    values, vectors = torch.linalg.eigh(even.T @ even / len(even))
    left = min(mlp.fc2.out_features - pixels.stop, len(values))
    main = (vectors[:, -left:] / values[-left:].clamp(min=1e-6).sqrt()).T / spread
    mlp.fc2.weight *= 0.3
    mlp.fc2.weight[:, :count] *= 0.1
    mlp.fc2.weight[pixels.stop : pixels.stop + left, :count] = main @ summed
    mlp.fc2.bias[pixels.stop : pixels.stop + left] = -main @ usual


def _edges(
    kind: str, mixture: tuple[float, float, float], grid: int, directions: int, patch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filters ``[grid * grid * directions, 3 * patch * patch]``, and how much each counts for each quarter of the patch
    ``[4 * directions, grid * grid * directions]``."""
    at = torch.arange(patch) + 0.5
    points = (torch.arange(grid) + 0.5) * patch / grid
    angles = torch.arange(directions) * math.tau / directions
    phases = torch.zeros(directions)
    if kind == "line":  # the same after half a turn, so that the second half of the directions are dark ones
        angles = angles.remainder(math.pi)
        phases = torch.where(torch.arange(directions) < directions / 2, math.pi / 2, -math.pi / 2)
    x = (at[None, :] - points[:, None])[None, :, None, None, :]  # [row, column, direction, y, x] from here on
    y = (at[None, :] - points[:, None])[:, None, None, :, None]
    across = x * angles.cos()[:, None, None] + y * angles.sin()[:, None, None]
    wave = torch.exp(-(x**2 + y**2) / (2 * _BLUR**2)) * torch.sin(math.tau * across / _WAVE + phases[:, None, None])
    wave = wave - wave.mean((-2, -1), keepdim=True)
    wave = wave / wave.square().sum((-2, -1), keepdim=True).sqrt()
    filters = wave[..., None, :, :] * torch.tensor(mixture)[:, None, None]
    first = (1.5 - 2 * points / patch).clamp(0, 1)  # a point's share in the upper, or the left half
    halves = torch.stack([first, 1 - first])
    quarters = torch.einsum("ay,bx->abyx", halves, halves).flatten(2).flatten(0, 1)
    return filters.reshape(-1, 3 * patch * patch), torch.kron(quarters, torch.eye(directions))


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
