"""The original LLaVA's forward, written again from its description, to hold a converted checkpoint against.

It shares nothing with the models that it judges: plain functions over tensors under the original's names. Each weight
is fetched, widened to float32, used and dropped, so a large model needs the memory of its largest matrix.
Shapes: n patches, D the tower's width, T tokens, H the language model's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear, silu

Get = Callable[[str], torch.Tensor]
IMAGE_INDEX = -200


class Weights:
    """Tensors by name in float32, and matrix products with a LoRA beside the matrix rather than merged into it."""

    def __init__(self, get: Get, pairs: dict[str, dict[str, torch.Tensor]] | None = None, scale: float = 0.0) -> None:
        self.get, self.pairs, self.scale = get, pairs or {}, scale

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.get(name).float()

    def linear(self, x: torch.Tensor, name: str, bias: bool = False) -> torch.Tensor:
        y = linear(x, self[f"{name}.weight"], self[f"{name}.bias"] if bias else None)
        pair = self.pairs.get(f"{name}.weight")
        return y if pair is None else y + self.scale * (x @ pair["A"].float().T @ pair["B"].float().T)

    def norm(self, x: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], eps)


def patches(w: Weights, prefix: str, config: Any, pixels: torch.Tensor, layer: int, keep_cls: bool) -> torch.Tensor:
    """CLIP up to hidden state ``layer``: normalised pixels ``[3, S, S]`` -> features ``[n, D]``."""
    x = conv2d(pixels[None], w[f"{prefix}embeddings.patch_embedding.weight"], stride=config.patch_size)
    x = torch.cat([w[f"{prefix}embeddings.class_embedding"][None], x[0].flatten(1).T])
    x = w.norm(x + w[f"{prefix}embeddings.position_embedding.weight"], f"{prefix}pre_layrnorm", config.layer_norm_eps)
    depth = config.num_hidden_layers
    for index in range(layer if layer >= 0 else depth + 1 + layer):
        block = f"{prefix}encoder.layers.{index}."
        h = w.norm(x, f"{block}layer_norm1", config.layer_norm_eps)
        q, k, v = (w.linear(h, f"{block}self_attn.{part}_proj", bias=True) for part in "qkv")
        heads = config.num_attention_heads
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in (q, k, v))
        scores = (q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
        h = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + w.linear(h, f"{block}self_attn.out_proj", bias=True)
        h = w.linear(w.norm(x, f"{block}layer_norm2", config.layer_norm_eps), f"{block}mlp.fc1", bias=True)
        h = h * torch.sigmoid(1.702 * h) if config.hidden_act == "quick_gelu" else gelu(h)
        x = x + w.linear(h, f"{block}mlp.fc2", bias=True)
    return x if keep_cls else x[1:]


def project(w: Weights, kind: str, features: torch.Tensor) -> torch.Tensor:
    """``mm_projector``: one matrix, or two with a GELU between them. ``[n, D]`` -> ``[n, H]``."""
    if kind == "linear":
        return w.linear(features, "model.mm_projector", bias=True)
    return w.linear(gelu(w.linear(features, "model.mm_projector.0", bias=True)), "model.mm_projector.2", bias=True)


def arranged(w: Weights, side: int, tiles: torch.Tensor, size: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """LLaVA-1.6: projected features ``[1 + tiles, n, H]`` of a picture of ``size`` (width, height) in a ``grid`` of
    (columns, rows) -> the global view's, then those of the unpadded map, with ``image_newline`` at every row's end."""
    columns, rows = grid[0] * side, grid[1] * side
    whole = tiles[1:].view(grid[1], grid[0], side, side, -1).transpose(1, 2).reshape(rows, columns, -1)
    if size[0] / size[1] > columns / rows:
        padding = (rows - int(size[1] * (columns / size[0]))) // 2
        whole = whole[padding : rows - padding]
    else:
        padding = (columns - int(size[0] * (rows / size[1]))) // 2
        whole = whole[:, padding : columns - padding]
    ends = w["model.image_newline"].expand(len(whole), 1, -1)
    return torch.cat([tiles[0], torch.cat([whole, ends], 1).flatten(0, 1)])


def best_points(size: tuple[int, int], points: list[list[int]]) -> list[int]:
    """LLaVA-1.6: of pinpoints (width, height) the one that keeps most of a picture, and of those the least waste."""
    best, kept, waste = points[0], -1, 0
    for point in points:
        scale = min(point[0] / size[0], point[1] / size[1])
        keeps = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        wastes = point[0] * point[1] - keeps
        if keeps > kept or (keeps == kept and wastes < waste):
            best, kept, waste = point, keeps, wastes
    return best


def splice(w: Weights, ids: list[int], image: torch.Tensor | None) -> torch.Tensor:
    """Embeddings ``[T, H]`` of ``ids``, in which -200 is replaced by the image's features."""
    table = w["model.embed_tokens.weight"]
    parts = [image if token == IMAGE_INDEX else table[token][None] for token in ids]
    return torch.cat([part for part in parts if part is not None])


def language(w: Weights, config: Any, x: torch.Tensor) -> torch.Tensor:
    """Llama (or Mistral within its window): embeddings ``[T, H]`` -> logits ``[T, V]``."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    inverse = config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2).float() / width)
    # Vicuna of long context: positions are squeezed linearly.
    positions = torch.arange(len(x)).float() / config.rope_parameters.get("factor", 1.0)
    angles = torch.outer(positions, inverse).repeat(1, 2)
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)

    def turned(part: torch.Tensor) -> torch.Tensor:
        half = torch.cat([-part[..., width // 2 :], part[..., : width // 2]], -1)
        return part * angles.cos() + half * angles.sin()

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config.rms_norm_eps) * w[name]

    for index in range(config.num_hidden_layers):
        block = f"model.layers.{index}."
        h = norm(x, f"{block}input_layernorm.weight")
        q, k, v = (w.linear(h, f"{block}self_attn.{part}_proj") for part in "qkv")
        q, k, v = (part.unflatten(-1, (-1, width)).transpose(0, 1) for part in (q, k, v))
        q, k = turned(q), turned(k)
        k, v = (part.repeat_interleave(heads // groups, 0) for part in (k, v))
        scores = (q @ k.transpose(1, 2) * width**-0.5).masked_fill(later, float("-inf"))
        x = x + w.linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"{block}self_attn.o_proj")
        h = norm(x, f"{block}post_attention_layernorm.weight")
        gate = silu(w.linear(h, f"{block}mlp.gate_proj"))
        x = x + w.linear(gate * w.linear(h, f"{block}mlp.up_proj"), f"{block}mlp.down_proj")
    return w.linear(norm(x, "model.norm.weight"), "lm_head")
