"""Loader: step number -> the packed rows of that step, or of one rank's share of it. Workers read ahead; a step does
not depend on them."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch.utils.data

from llavakit.base.errors import BadRecord, LlavakitError, WorkFailed
from llavakit.data.augment import augment
from llavakit.data.collate import collate
from llavakit.data.mixture import Mixture
from llavakit.data.pack import pack
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.llava import Batch, Member

OnBad = Literal["stop", "skip"]


@dataclass
class Step:
    """What one optimiser step trains on: ``rows`` to run one after another, those with pictures first, and what they
    amount to."""

    number: int
    rows: list[Batch]
    samples: int
    tokens: int
    supervised: int
    cut: int = 0
    bad: list[str] = field(default_factory=list)


class Steps(torch.utils.data.Dataset[Step]):
    """``steps[n]``: step n of a stage, of ``batch_size`` samples; the last of an epoch may have fewer.

    With ``on_bad="stop"`` a bad record raises; with ``"skip"`` it is left out and named in :attr:`Step.bad`. With
    ``augment`` pictures are cropped and flipped, by (seed, epoch, place in it) alone. ``share``: of each step only what
    falls to rank r of n (r, n), which may be nothing.
    """

    def __init__(
        self,
        mixture: Mixture,
        codec: Codec,
        batch_size: int,
        row_tokens: int,
        epochs: float,
        on_bad: OnBad,
        augment: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.mixture = mixture
        self.codec = codec
        self.batch_size = batch_size
        self.row_tokens = row_tokens
        self.on_bad = on_bad
        self.augment = augment
        self.share = share
        self.per_epoch = -(-len(mixture) // batch_size)
        self.total = max(1, round(self.per_epoch * epochs))
        self._order = (-1, np.empty((0, 2), dtype=np.int64))

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: int) -> Step:
        examples: list[Example] = []
        members = []
        bad = []
        epoch, step = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self.mixture.order(epoch))
        first = step * self.batch_size
        rank, ranks = self.share
        for place in range(first + rank, min(first + self.batch_size, len(self._order[1])), ranks):
            source, record = self._order[1][place]
            try:
                conversation = self.mixture.at(int(source), int(record))
                if self.augment:
                    # A stream of its own: the order's is (seed, epoch).
                    conversation = augment(conversation, np.random.default_rng((self.mixture.seed, epoch, 1, place)))
                examples.append(encode(conversation, self.codec))
                members.append(Member(conversation.id, self.mixture.names[int(source)]))
            except BadRecord as error:
                if self.on_bad == "stop":
                    raise
                bad.append(str(error))
        if not examples and ranks == 1:
            raise WorkFailed(f"step {number} has no usable record; the first is bad: {bad[0]}")
        packed = pack([len(example) for example in examples], self.row_tokens)
        rows = [collate([examples[i] for i in row], self.codec.image_id, [members[i] for i in row]) for row in packed]
        return Step(
            number=number,
            rows=sorted(rows, key=lambda row: row.pixels is None),
            samples=len(examples),
            tokens=sum(len(example) for example in examples),
            supervised=sum(example.supervised for example in examples),
            cut=sum(example.cut for example in examples),
            bad=bad,
        )

    def read(self, start: int = 0, workers: int = 0) -> Iterator[Step]:
        """Steps ``start`` and on, in order, prepared by ``workers`` processes (0: in this one)."""
        loader = torch.utils.data.DataLoader(
            _Outcomes(self),
            batch_size=None,
            sampler=range(start, self.total),
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            collate_fn=_same,
            worker_init_fn=_outlive_sigterm,
        )
        try:
            for outcome in loader:
                if isinstance(outcome, LlavakitError):
                    raise outcome
                yield outcome
        except (OSError, EOFError) as error:
            if not workers or "DataLoader worker" in str(error):  # its own error, brought here
                raise
            # What a worker had sent is fetched from it, and it died before that. The signal of its death may still
            # come, and is raised here then, not where nobody expects it.
            time.sleep(1)
            raise WorkFailed(f"a process that prepares data died: {error!r} while it was read from") from None


@contextlib.contextmanager
def workers_alive() -> Iterator[None]:
    """Within the block the death of a process that prepares data is a :class:`WorkFailed`. PyTorch raises it wherever
    the main thread is at that moment, not only where it waits for data."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise WorkFailed(
            f"a process that prepares data died: {reason} (the kernel kills what needs too much)"
        ) from None


class _Outcomes(torch.utils.data.Dataset[Step | LlavakitError]):
    """Steps, or what was wrong with one as a value: raised in a worker, it would come with a traceback in its text."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def __getitem__(self, number: int) -> Step | LlavakitError:
        try:
            return self.steps[number]
        except LlavakitError as error:
            return error


def _outlive_sigterm(worker: int) -> None:
    """A cluster that stops a job tells all of its processes; this one ends with the one that it reads for, which may
    still be writing a snapshot."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _same(item: Any) -> Any:
    return item
