"""Whose a run's directory is: one recipe's, and nobody takes it over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, sweep, write_json
from llavakit.train.stage import Recipe


def claim(recipe: Recipe, out: Path, resume: bool = False) -> None:
    """Makes ``out`` this run's, or refuses. Clears away what a killed process left half written in a run's folders."""
    if not (out / "run.json").exists():
        if resume:
            raise BadRequest(f"{out} holds no run to resume")
        for half in out.glob(".run.json.*.tmp"):  # of a process that was killed here
            half.unlink()
        if out.exists() and any(out.iterdir()):
            raise BadRequest(f"{out} exists and is not a run of llavakit; choose another --out")
        write_json(out / "run.json", recipe.plain())
        return
    if not resume:
        raise BadRequest(f"{out} already holds a run; continue it with --resume or choose another --out")
    before, now = read_json(out / "run.json"), recipe.plain()
    if before != now:
        difference = _first_difference(before, now)
        raise BadRequest(f"{out} holds a run of another recipe ({difference}); it cannot be resumed")
    for folder in (out, out / "stages", out / "snapshots", out / "backbones"):
        sweep(folder)


def _first_difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *now]:
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} was {before!r}, is {now!r}"
