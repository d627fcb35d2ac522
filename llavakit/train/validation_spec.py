"""What a stage is measured by while it trains."""

from __future__ import annotations

from pydantic import Field

from llavakit.base.config import Config
from llavakit.data.mixture import SourceSpec


class Bench(Config):
    """Questions of a benchmark: its official files, as ``llavakit eval`` finds them. ``limit``: about so many of them,
    whole pictures, spread over all; None: all."""

    data: str
    images: str | None = None
    protocol: str = ""
    limit: int | None = Field(None, gt=0)
    max_new_tokens: int = Field(128, gt=0)


class Validation(Config):
    """Beside what the training sources hold out: ``sources`` that only validate, and benchmarks by name.

    ``best``: "loss", or the benchmark whose score says which weights are best. With ``keep_best`` these are saved as a
    native checkpoint of their own, ``best/STAGE``, whenever they get better; the stage itself ends in its last weights.
    """

    sources: dict[str, SourceSpec] = Field(default_factory=dict)
    bench: dict[str, Bench] = Field(default_factory=dict)
    best: str = "loss"
    keep_best: bool = False
