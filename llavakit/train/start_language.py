"""Where a small language model starts. From here minutes do what takes days from plain noise.

A transformer that starts at random spends most of a short training finding out that like attends to like, and a short
one never finds out that "the small triangle" is the one patch that is both, nor that what followed a word once may
follow it again. All of it can be said in the starting weights of an ordinary Llama (compare "mimetic initialisation",
arXiv 2305.09828, and induction heads, arXiv 2209.11895); everything is learned on from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

LOUD = 12.0
"""The channel that all words share, beside 0.5 of the others. So loud that the norm before each layer hardly depends on
how many words are added up: a patch that is two of the words asked for then scores twice what a single word does."""

NEAR = (0.15, 0.7)  # radians a token: rotary channels that tell the last few tokens from the rest ...
FAR = 0.006  # ... and, below this, those that do not see distance
FEW = (2.5, 10.0, 2.0)  # the few words before: tokens back, score there, weight of their mean
LAST = (1.0, 25.0, 2.0)  # the last word before, likewise
OWN = 0.5  # of a word's own part in what it looks up, to that of the words before it
ALIKE, BLUR = 1.0, 0.5  # scale of looking up: for the words that have a channel of their own, and for chance
FORM = 0.5  # of a word: how far a capital, or the space before it, moves it
REPEATED = 20.0  # score of what stands behind the same word
COPIED = 0.85  # of values and outputs: their product is what a layer adds of what it finds


@torch.no_grad()
def start_language(model: Any, frequent: Sequence[int] = (), vocabulary: Mapping[str, int] | None = None) -> None:
    """Weights of a Llama with an even number of heads, in place. ``frequent``: the words that pictures are told in, the
    most frequent first; each begins with a channel of its own, as many as there are, so that a sum of them can be taken
    to pieces again. ``vocabulary``: of a byte-level tokenizer; "Red" and "red", with a space before or without, begin
    alike, or an answer that opens with a capital is another word than what was found.

    Half of the channels are for a word itself and half for those before it, which the first layer copies there: half
    of its heads the last one, the others the mean of a few. In the later layers heads look up: a word attends to what
    holds the words before it and its own, and copies from there; to a head's rotary channels that do not see distance
    go the channels of the most frequent words. Half of the second layer's look for the place behind the same word
    instead (in every layer, they make of lists one item repeated).
    """
    config = model.config
    width, half = config.hidden_size, config.num_attention_heads // 2
    size = width // config.num_attention_heads
    room = width // 2 - 1
    own, before = slice(1, room + 1), slice(room + 1, 2 * room + 1)
    embedding = model.get_input_embeddings().weight
    embedding.zero_()
    embedding[:, own].normal_(std=0.5 * math.sqrt(width / room))
    told = torch.tensor(frequent[:room], dtype=torch.long)
    embedding[told, own] = 0.5 * math.sqrt(width) * torch.eye(room)[: len(told)]
    forms = torch.zeros(2, width)
    forms[:, own].normal_(std=0.5 * math.sqrt(width / room))
    for word, first, larger, further in _alike(vocabulary or {}, told.tolist()):
        embedding[word] = embedding[first] + FORM * (larger * forms[0] + further * forms[1])
    model.get_output_embeddings().weight.copy_(0.1 * embedding)
    embedding[:, 0] = LOUD
    scale = float(embedding.square().mean(1).sqrt().mean())
    speeds = config.rope_parameters["rope_theta"] ** (-torch.arange(0, size, 2) / size)
    near, far = ((speeds > NEAR[0]) & (speeds < NEAR[1])).float(), (speeds < FAR).float()
    still = [row for i in range(size // 2 - 1, -1, -1) if far[i] for row in (i, i + size // 2)]  # the slowest first
    words = torch.eye(half * size, room)
    looking, repeating = slice(0, half * size), slice(half * size, None)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        query, key, value, out = (getattr(attention, f"{name}_proj").weight for name in "qkvo")
        for weight, noise in ((query, 0.2), (key, 0.2), (value, 0.0), (out, 0.0)):
            weight *= noise if index == 0 else 0.0
        value[looking, own], value[repeating, own] = words, words
        if index == 0:
            for heads, channels, (back, score, share) in (
                (looking, near, FEW),
                (repeating, (speeds > NEAR[0]).float(), LAST),
            ):
                cosine, sine = torch.cos(back * speeds), torch.sin(back * speeds)
                strength = math.sqrt(score * math.sqrt(size) / (2 * float(channels.sum()))) / (LOUD / scale)
                # Turned so that it meets the key's (channels, channels) that far back.
                turned = torch.cat([channels * (cosine + sine), channels * (cosine - sine)])
                query[heads, 0] = strength * turned.repeat(half)
                key[heads, 0] = strength * torch.cat([channels, channels]).repeat(half)
                out[before, heads] = share * scale * words.T
            continue
        value *= COPIED
        out[own, looking], out[own, repeating] = COPIED * words.T, COPIED * words.T
        for heads in [looking] if index == 1 else [looking, repeating]:
            like = torch.randn(half, size, room) * BLUR * math.sqrt(size / len(still) / width)
            like *= torch.cat([far, far])[:, None]
            like[:, still, range(len(still))] += ALIKE * (size / 64) ** 0.25
            key[heads, own] = like.flatten(0, 1)
            query[heads, own], query[heads, before] = OWN * like.flatten(0, 1), like.flatten(0, 1)
        if index == 1:
            same = torch.zeros(half, size, room)
            for head in same:
                head[still] = torch.nn.init.orthogonal_(torch.empty(len(still), room))
            met = LAST[2] * (0.5 / scale) ** 2 * len(still) * width / room  # product of a word and itself, not scaled
            same *= math.sqrt(REPEATED * math.sqrt(size) / met)
            query[repeating, own], key[repeating, before] = same.flatten(0, 1), same.flatten(0, 1)


def _alike(vocabulary: Mapping[str, int], first: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Words that are another one but for a capital or the space before it: the word, the other (of ``first`` where one
    is there), and by how many capitals and spaces it has more."""
    names = {word: name for name, word in vocabulary.items()}
    found: dict[str, tuple[int, int, int]] = {}
    for word in [*(w for w in first if w in names), *sorted(names.keys() - set(first))]:
        bare = names[word].removeprefix("\u0120")
        if len(bare) < 2 or not bare.isalpha() or bare.isupper():
            continue
        capital, spaced = int(bare[0].isupper()), int(bare != names[word])
        if bare.lower() in found:
            other, had_capital, had_space = found[bare.lower()]
            yield word, other, capital - had_capital, spaced - had_space
        else:
            found[bare.lower()] = word, capital, spaced
