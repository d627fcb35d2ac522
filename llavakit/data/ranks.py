"""A step that several ranks do together: its totals over all of them, and the same work, row by row, on each.

A sharded layer's weights are gathered from all ranks whenever it runs, so a rank that ran the tower while another did
not, or one row more, would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from llavakit.base.dist import fail, share, world_size
from llavakit.base.errors import LlavakitError, WorkFailed
from llavakit.data.loader import Step
from llavakit.model.encode import Codec
from llavakit.model.llava import Batch

COUNTED = ("samples", "tokens", "supervised", "cut", "bad")


def agreed(steps: Iterator[Step], codec: Codec) -> Iterator[Step]:
    """Each step of this rank with what all ranks have counted, and with idle rows and pictures where others have more.

    A failure on one rank is raised there, and the others end in silence with its exit code.
    """
    if world_size() == 1:
        yield from steps
        return
    while True:
        step: Step | None = None
        failure: LlavakitError | None = None
        try:
            step = next(steps, None)
        except LlavakitError as error:
            failure = error
        shared: list[Any] = share(failure.exit_code if failure is not None else _counts(step))
        if failure is not None:
            raise failure
        if codes := [other for other in shared if isinstance(other, int)]:
            raise SystemExit(max(codes))
        if step is None:
            return
        totals: dict[str, Any] = {key: sum((o[key] for o in shared[1:]), shared[0][key]) for key in COUNTED}
        if not totals["samples"]:
            fail(WorkFailed(f"step {step.number} has no usable record; the first is bad: {totals['bad'][0]}"))
        rows, pictured = (max(other[key] for other in shared) for key in ("rows", "pictured"))
        yield replace(step, rows=_level(step.rows, rows, pictured, codec), **totals)


def _counts(step: Step | None) -> dict[str, Any]:
    if step is None:
        return {}
    pictured = sum(row.pixels is not None for row in step.rows)
    return {key: getattr(step, key) for key in COUNTED} | {"rows": len(step.rows), "pictured": pictured}


def _level(rows: list[Batch], number: int, pictured: int, codec: Codec) -> list[Batch]:
    """``number`` rows, the first ``pictured`` of which have pictures. Rows with pictures come first already."""
    level = [*rows, *(idle(codec, picture=False) for _ in range(number - len(rows)))]
    for index, row in enumerate(level[:pictured]):
        if row.pixels is None:
            level[index] = beside(row, idle(codec, picture=True))
    return level


def idle(codec: Codec, picture: bool) -> Batch:
    """A sequence of which nothing is learnt: one token, or a blank picture's."""
    # Of a tiled picture one feature and one row end are enough for every weight to get its gradient of zero.
    tokens = 1 if not picture else codec.image_tokens if codec.grids is None else 2
    side = codec.square.size
    nothing = torch.empty(0, dtype=torch.int64)
    return Batch(
        ids=torch.full((tokens,), codec.image_id),
        positions=torch.arange(tokens),
        segments=[tokens],
        predict=nothing,
        targets=nothing,
        pixels=torch.zeros(1, 3, side, side, dtype=torch.uint8) if picture else None,
        image_at=torch.arange(tokens) if picture else nothing,
        take=torch.tensor([[0, 0], [-1, 0]]) if picture and codec.grids is not None else None,
    )


def beside(row: Batch, other: Batch) -> Batch:
    """``row``, which has no pictures, with the idle sequence ``other`` behind it."""
    return replace(
        other,
        ids=torch.cat([row.ids, other.ids]),
        positions=torch.cat([row.positions, other.positions]),
        segments=[*row.segments, *other.segments],
        predict=row.predict,
        targets=row.targets,
        image_at=other.image_at + len(row.ids),
        members=row.members,
        asked=None if row.asked is None else [*row.asked, *([] for _ in other.segments)],
    )
