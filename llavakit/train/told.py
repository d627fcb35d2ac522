"""Told pictures: what a vision tower would see, as words in their places, for a language model that has no tower yet.

A patch is the sum of the embeddings of the words that describe what is there. A language model learns from them, in a
minute and without one pixel, to look things up in a picture; where the connector starts (:mod:`.start_connector`) sends
real patches to just such sums. Without this lesson it must learn from features that change under it what an image is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llavakit.train.backbones_regions import Region, cells

_NOISE = 0.5  # of a channel, at most: each picture has another, or blank patches are told apart by having none
_UNSEEN = 0.1  # of the words


def told_picture(regions: Sequence[Region], side: int, embedding: torch.Tensor) -> torch.Tensor:
    """``float[side * side, H]``: a picture of ``regions`` in words of ``embedding`` float[V, H]."""
    words = words_by_patch(regions, side, len(embedding))
    seen = words * (torch.rand_like(words) > _UNSEEN)
    picture = seen @ embedding
    picture = picture + torch.rand(()) * _NOISE * torch.randn_like(picture)
    # The loud channel is all words' own, whatever a patch shows.
    return torch.cat([embedding[:, :1].mean().expand(len(picture), 1), picture[:, 1:]], dim=1)


def words_by_patch(regions: Sequence[Region], side: int, vocabulary: int) -> torch.Tensor:
    """``float[side * side, vocabulary]``: 1 where a patch lies in a region whose phrase has the word."""
    words = torch.zeros(side * side, vocabulary)
    for region in regions:
        for cell in cells(region.box, side):
            words[cell, region.ids[1:]] = 1.0
    return words
