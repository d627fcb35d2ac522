"""Rows of the parity table. A row is one function, in any file of this folder, that returns the worst difference::

    @row("logits, llava", against="transformers, float32", bound=1e-5)
    def llava_logits() -> float: ...

Differences are absolute, relative to the reference's largest number, or counts of what is unequal: the name says which.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import toys


@dataclass(frozen=True)
class Row:
    """``what`` is compared ``against`` what; ``measure()`` is the worst difference and must be at most ``bound``."""

    what: str
    against: str
    bound: float
    measure: Callable[[], float]


_ROWS: dict[str, Row] = {}


def row(what: str, *, against: str, bound: float) -> Callable[[Callable[[], float]], Callable[[], float]]:
    """Enters a function in the table. Raises ValueError when there is a row of that name."""

    def enter(measure: Callable[[], float]) -> Callable[[], float]:
        if what in _ROWS:
            raise ValueError(f"two rows are named {what!r}")
        _ROWS[what] = Row(what, against, bound, measure)
        return measure

    return enter


def all_rows() -> list[Row]:
    """Every row of every file here."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return list(_ROWS.values())


def relative(ours: object, theirs: object) -> float:
    """Largest absolute difference of two tensors over the reference's largest number; infinite for other shapes."""
    import torch

    assert torch.is_tensor(ours) and torch.is_tensor(theirs)
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.abs().max())


@functools.cache
def scratch() -> Path:
    """A directory that lives as long as the process."""
    return Path(_temporary().name)


@functools.cache
def backbones() -> Path:
    """The tiny backbones of the tests: ``clip``, ``siglip``, ``language``."""
    out = toys.write_backbones(scratch() / "backbones")
    toys.write_siglip(out)
    return out


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="parity-")
