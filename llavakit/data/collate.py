"""Examples -> one packed Batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from llavakit.chat.labels import IGNORE
from llavakit.model.blocks import places
from llavakit.model.encode import Example, pictures
from llavakit.model.llava import Batch, Member


def collate(examples: Sequence[Example], image_id: int, members: Sequence[Member] = ()) -> Batch:
    """Packs ``examples`` end to end into one row; no token of it is padding. ``members``: who they are, in order."""
    lengths = [len(example) for example in examples]
    ids = np.concatenate([example.ids for example in examples])
    labels = np.concatenate([example.labels for example in examples])
    starts = np.cumsum([0, *lengths[:-1]])
    # Nothing predicts the first token of an example: its neighbour in the row belongs to another.
    labels[starts] = IGNORE
    (supervised,) = np.nonzero(labels != IGNORE)
    pixels, take = pictures(examples)
    predict = torch.from_numpy(supervised - 1)
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
        segments=lengths,
        predict=predict,
        targets=torch.from_numpy(labels[supervised]),
        pixels=None if pixels is None else torch.from_numpy(pixels),
        image_at=torch.from_numpy(np.nonzero(ids == image_id)[0]),
        take=None if take is None else torch.from_numpy(take),
        members=tuple(members),
        asked=places(predict, lengths),
    )
