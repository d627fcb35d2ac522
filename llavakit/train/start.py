"""Where small backbones start. From here minutes do what takes days from plain noise.

A transformer that starts at random spends most of a short training finding out that neighbours belong together and
that like attends to like. Both can be said in the starting weights of an ordinary Llama or CLIP (compare "mimetic
initialisation", arXiv 2305.09828); everything is learned on from here.
"""

from __future__ import annotations

import math
from typing import Any

import torch

LOUD = 4.0  # the channel that all words share, beside 0.5 of the others
NEAR = (0.15, 0.7)  # radians a token: rotary channels that tell the last few tokens from the rest ...
FAR = 0.02  # ... and, below this, those that hardly see distance
BEHIND = 2.5  # tokens: the middle of what the first layer looks back at


@torch.no_grad()
def start_language(model: Any) -> None:
    """Weights of a Llama, in place: the first layer adds to each word the mean of the few before it, so that "red star"
    is known at "star"; in the later ones a word attends to where the same words stand, and copies from there."""
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    size = width // heads
    eye = torch.eye(width)
    embedding = model.get_input_embeddings().weight
    embedding.normal_(std=0.5)
    model.get_output_embeddings().weight.copy_(0.1 * embedding)
    model.get_output_embeddings().weight[:, 0] = 0
    embedding[:, 0] = LOUD
    scale = float(embedding.square().mean(1).sqrt().mean())
    speeds = config.rope_parameters["rope_theta"] ** (-torch.arange(0, size, 2) / size)
    near, far = ((speeds > NEAR[0]) & (speeds < NEAR[1])).float(), (speeds < FAR).float()
    cosine, sine = torch.cos(BEHIND * speeds), torch.sin(BEHIND * speeds)
    turned = torch.cat([near * (cosine + sine), near * (cosine - sine)])  # of the key's (near, near), that far back
    strength = math.sqrt(10.0 * math.sqrt(size) / (2 * float(near.sum()))) / (LOUD / scale)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        query, key = attention.q_proj.weight, attention.k_proj.weight
        if index == 0:
            for weight, direction in ((query, turned), (key, torch.cat([near, near]))):
                weight *= 0.2
                weight[:, 0] = strength * direction.repeat(heads)
            attention.v_proj.weight.copy_(eye)
            attention.o_proj.weight.copy_(2 * scale * eye)
        else:
            like = torch.randn(width, width) * 0.7 * math.sqrt(size / (2 * float(far.sum())) / width)
            like *= torch.cat([far, far]).repeat(heads)[:, None]
            like[:, 0] = 0
            query.copy_(like)
            key.copy_(like)
            attention.v_proj.weight.copy_(0.5 * eye)
            attention.o_proj.weight.copy_(0.5 * eye)
        attention.v_proj.weight[0] = 0


@torch.no_grad()
def start_connector(connector: Any, features: torch.Tensor, words: torch.Tensor, embedding: torch.Tensor) -> None:
    """Where a two-layer connector starts: from each patch to the words for what is there.

    ``features`` float[n, D] of the tower's patches; ``words`` float[n, H]: the sum of the embeddings of each patch's
    words, or of its picture's caption; ``embedding`` float[V, H] of the language model. A ridge regression in closed
    form. Without it a patch is no word of the language model, nothing that looks for a word finds it, and no gradient
    says which of the patches was meant.
    """
    usual = words.mean(0)
    words = words - usual
    words[:, 0] = 0.0  # the loud channel is all words' own
    mean, spread = features.mean(0), features.std(0) + 1e-6
    flat = (features - mean) / spread
    hidden = connector.linear_1.out_features
    # The directions that say most about words, with both signs (then GELU loses nothing of them); the rest by chance.
    _, _, told = torch.linalg.svd(_ridge(flat, words).T, full_matrices=False)
    told = told[: hidden // 4]
    chance = torch.randn(hidden - 2 * len(told), flat.shape[1]) / math.sqrt(flat.shape[1])
    directions = torch.cat([told, -told, chance])
    directions /= (flat @ directions.T).std(0)[:, None]
    connector.linear_1.weight.copy_(directions / spread)
    connector.linear_1.bias.copy_(-connector.linear_1.weight @ mean)
    active = torch.nn.functional.gelu(flat @ directions.T)
    middle = active.mean(0)
    weight = _ridge(active - middle, words).T
    connector.linear_2.weight.copy_(weight)
    connector.linear_2.bias.copy_(usual - weight @ middle)
    connector.linear_2.bias[0] = embedding[:, 0].mean()


def _ridge(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """``float[D, H]`` that takes centred ``inputs`` ``[n, D]`` to ``targets`` ``[n, H]``."""
    moments = inputs.T @ inputs
    moments += 1e-3 * moments.diagonal().mean() * torch.eye(len(moments))
    return torch.linalg.solve(moments, inputs.T @ targets)
