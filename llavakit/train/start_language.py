"""Where a small language model starts. From here minutes do what takes days from plain noise.

A transformer that starts at random spends most of a short training finding out that like attends to like, and a short
one never finds out that "the small triangle" is the one patch that is both. Both can be said in the starting weights of
an ordinary Llama (compare "mimetic initialisation", arXiv 2305.09828); everything is learned on from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

LOUD = 12.0
"""The channel that all words share, beside 0.5 of the others. So loud that the norm before each layer hardly depends on
how many words are added up: a patch that is two of the words asked for then scores twice what a single word does."""

NEAR = (0.15, 0.7)  # radians a token: rotary channels that tell the last few tokens from the rest ...
FAR = 0.006  # ... and, below this, those that do not see distance
BEHIND = 2.5  # tokens: the middle of what the first layer looks back at
BEFORE = 2.0  # weight of the mean of the words just before
OWN = 0.5  # of a word's own part in what it looks for, to that of the words before it
ALIKE, BLUR = 1.0, 0.5  # scale of queries and keys: for the words that have a channel of their own, and for chance
COPIED = 0.7  # of values and outputs: their product is what a layer adds of what it finds


@torch.no_grad()
def start_language(model: Any, frequent: Sequence[int] = ()) -> None:
    """Weights of a Llama, in place. ``frequent``: the words that pictures are told in, the most frequent first; each
    begins with a channel of its own, as many as there are, so that a sum of them can be taken to pieces again.

    The first layer adds to each word the mean of the few before it, in directions of their own (a query that held its
    own word as its key does would match nothing so well as itself). In the later ones a word attends to what holds the
    words before it and its own, and copies from there: to a head's rotary channels that do not see distance go the
    channels of the most frequent words.
    """
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    size = width // heads
    eye = torch.eye(width)
    embedding = model.get_input_embeddings().weight
    embedding.normal_(std=0.5)
    told = torch.tensor(frequent[: width - 1], dtype=torch.long)
    embedding[told] = 0.5 * math.sqrt(width) * eye[1 : len(told) + 1]
    model.get_output_embeddings().weight.copy_(0.1 * embedding)
    model.get_output_embeddings().weight[:, 0] = 0
    embedding[:, 0] = LOUD
    scale = float(embedding.square().mean(1).sqrt().mean())
    speeds = config.rope_parameters["rope_theta"] ** (-torch.arange(0, size, 2) / size)
    near, far = ((speeds > NEAR[0]) & (speeds < NEAR[1])).float(), (speeds < FAR).float()
    cosine, sine = torch.cos(BEHIND * speeds), torch.sin(BEHIND * speeds)
    turned = torch.cat([near * (cosine + sine), near * (cosine - sine)])  # of the key's (near, near), that far back
    strength = math.sqrt(10.0 * math.sqrt(size) / (2 * float(near.sum()))) / (LOUD / scale)
    still = [row for i in range(size // 2 - 1, -1, -1) if far[i] for row in (i, i + size // 2)]  # the slowest first
    exact = torch.zeros(size, width)
    exact[still, 1 : len(still) + 1] = ALIKE * (size / 64) ** 0.25 * torch.eye(len(still))
    before = torch.zeros(width, width)
    before[1:, 1:] = torch.nn.init.orthogonal_(torch.empty(width - 1, width - 1))
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        query, key = attention.q_proj.weight, attention.k_proj.weight
        if index == 0:
            for weight, direction in ((query, turned), (key, torch.cat([near, near]))):
                weight *= 0.2
                weight[:, 0] = strength * direction.repeat(heads)
            attention.v_proj.weight.copy_(eye)
            attention.o_proj.weight.copy_(BEFORE * scale * before)
        else:
            like = torch.randn(width, width) * BLUR * math.sqrt(size / len(still) / width)
            like *= torch.cat([far, far]).repeat(heads)[:, None]
            like[:, 0] = 0
            like += exact.repeat(heads, 1)
            key.copy_(like)
            query.copy_(like @ (before.T + OWN * eye))
            attention.v_proj.weight.copy_(COPIED * eye)
            attention.o_proj.weight.copy_(COPIED * eye)
        attention.v_proj.weight[0] = 0
