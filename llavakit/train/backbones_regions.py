"""Regions and their phrases, from which a small tower's patches learn what is where.

CLIP's contrast of whole pictures tells colours and places apart within a minute, shapes and patterns not within many:
nothing says which patch a word belongs to. Boxes say it (compare RegionCLIP, arXiv 2112.09106).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy, normalize

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import Conversation
from llavakit.data.mixture import SourceSpec, open_source

_NUMBER = r"\s*(\d*\.?\d+)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_SCALE = 24.0  # of cosines


@dataclass(frozen=True)
class Region:
    """``box``: x1, y1, x2, y2 as shares of the picture padded to a square; ``ids``: BOS and the tokens of its
    phrase."""

    box: tuple[float, float, float, float]
    ids: list[int]


def described(spec: SourceSpec, tokenizer: Any) -> dict[str, list[Region]]:
    """The regions of each image that ``spec`` describes, by its path."""
    source = open_source("regions", spec, image_first=False)
    records = [source[index] for index in range(len(source))]
    return {str(record.images[0]): regions_of(record, tokenizer) for record in records}


def regions_for(conversation: Conversation, known: dict[str, list[Region]], spec: SourceSpec) -> list[Region]:
    """Those of a conversation's image. Raises :class:`BadRecord` when there are none."""
    image = str(conversation.images[0])
    if image not in known:
        raise BadRecord(f"{spec.path} describes no regions of {image}", conversation.where)
    return known[image]


def regions_of(conversation: Conversation, tokenizer: Any) -> list[Region]:
    """What is described. Raises :class:`BadRecord` where a question names no box."""
    found = []
    for question, answer in zip(conversation.turns[::2], conversation.turns[1::2], strict=True):
        match = _BOX.search(question.text)
        if match is None:
            raise BadRecord(f"names no box [x1, y1, x2, y2]: {question.text[:80]!r}", conversation.where)
        x1, y1, x2, y2 = (float(number) for number in match.groups())
        # In mid-sentence, as captions have it: most words are other tokens at the head of a text.
        phrase = f" {answer.text[:1].lower()}{answer.text[1:]}"
        ids = [tokenizer.bos_token_id, *tokenizer(phrase, add_special_tokens=False).input_ids]
        found.append(Region((x1, y1, x2, y2), ids))
    return found


def phrase_loss(model: Any, patches: torch.Tensor, pictures: Sequence[Sequence[Region]], pad_id: int) -> torch.Tensor:
    """Each word of a phrase against all words of the batch, told by the patches of its region and the words before it.

    What the phrase's beginning tells (that a colour comes now) the patches need not, so that their gradient is about
    which colour. They speak together, by their mean: a corner knows that it is no circle's, and the middle need not.
    ``patches`` float[B, N, D] of the layer that LLaVA takes; ``pictures``: the regions of each of the B.
    """
    side = round(patches.shape[1] ** 0.5)
    regions = [(picture, region) for picture, all_ in enumerate(pictures) for region in all_]
    inside = [cells(region.box, side) for _, region in regions]
    at = torch.tensor([p * side * side + cell for (p, _), found in zip(regions, inside, strict=True) for cell in found])
    counts = torch.tensor([len(found) for found in inside])
    of = torch.arange(len(regions)).repeat_interleave(counts)
    length = max(len(region.ids) for _, region in regions)
    ids = torch.full((len(regions), length), pad_id)
    for row, (_, region) in zip(ids, regions, strict=True):
        row[: len(region.ids)] = torch.tensor(region.ids)
    known = (torch.arange(length) < torch.tensor([len(region.ids) for _, region in regions])[:, None]).long()
    states = model.text_model(input_ids=ids, attention_mask=known).last_hidden_state[:, :-1]
    seen = model.vision_model.post_layernorm(patches.flatten(0, 1)[at])
    present, targets = ids[:, 1:].unique(return_inverse=True)
    words, before, patch = (
        normalize(x.float(), dim=-1)
        for x in (
            model.text_projection(model.text_model.embeddings.token_embedding(present)),
            model.text_projection(states),
            model.visual_projection(seen),
        )
    )
    whole = torch.zeros(len(regions), patch.shape[1]).index_add(0, of, patch) / counts[:, None]
    logits = _SCALE * (before @ words.T + (whole @ words.T)[:, None])  # [regions, words of the phrase, of the batch]
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(len(regions), -1)
    return (losses * known[:, 1:]).sum() / len(regions)


def cells(box: tuple[float, float, float, float], side: int) -> list[int]:
    """Patches whose centres lie in the box, row-major; the one at its centre where none does."""
    x1, y1, x2, y2 = box
    columns, rows = _within(x1, x2, side), _within(y1, y2, side)
    return [row * side + column for row in rows for column in columns]


def _within(low: float, high: float, side: int) -> list[int]:
    inside = [i for i in range(side) if low <= (i + 0.5) / side <= high]
    return inside or [min(max(int((low + high) / 2 * side), 0), side - 1)]
