"""The published table of LLaVA-1.5 and those it was compared with, and one's own results in its columns."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from llavakit.base.config import Config
from llavakit.eval.benchmark import Result

ASKED_ALIKE = ("official", "strict", "ocr")
"""Protocols that ask what the published models were asked; others move a score by tens of points."""


class Column(Config):
    """``metric``: of a result, "" for its headline; ``scale`` makes a fraction the percent that is published."""

    key: str
    title: str
    benchmark: str
    metric: str
    scale: float
    split: str


class Model(Config):
    """``alignment`` and ``tuning``: trained on how much; ``seen``: columns whose training images were in that."""

    name: str
    pixels: int
    alignment: str
    tuning: str | None
    scores: dict[str, float]
    seen: tuple[str, ...]


class Published(Config):
    """``drawn``: the models that a picture shows, of all that the table has."""

    about: str
    columns: tuple[Column, ...]
    drawn: tuple[str, ...]
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Own:
    """One's own figure in a column, and its interval where the column is the result's headline."""

    score: float
    interval: tuple[float, float] | None


@functools.cache
def published() -> Published:
    text = resources.files("llavakit.eval").joinpath("published.json").read_text(encoding="utf-8")
    return Published.parse(json.loads(text), "published.json")


def own_figures(results: Iterable[Result]) -> dict[str, Own]:
    """Column -> figure, of the columns that the results fill: those asked as the published ones were, the first of
    each benchmark."""
    first: dict[str, Result] = {}
    for result in results:
        if result.protocol in ASKED_ALIKE:
            first.setdefault(result.benchmark, result)
    found = {}
    for column in published().columns:
        if column.benchmark not in first:
            continue
        result = first[column.benchmark]
        if column.metric and column.metric not in result.metrics:
            continue
        score = result.metrics[column.metric] if column.metric else result.score
        ends = None if column.metric or result.interval is None else result.interval
        found[column.key] = Own(column.scale * score, ends and (column.scale * ends[0], column.scale * ends[1]))
    return found
