"""Everything that the report shows, read from a finished demo directory and checked."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.train.stage import Recipe

ANSWERERS = ("tuned", "blank", "before")
"""Who answered: the finished model, the same shown a blank image, the model before instruction tuning."""

Record = dict[str, Any]


class _Open(Config):
    """Written by the demo, for many readers: a key that this page does not show is no mistake."""

    model_config = ConfigDict(extra="ignore")


class Scores(_Open):
    """One ingredient; None where a baseline makes no sense."""

    accuracy: float
    blank_image: float | None = None
    before_tuning: float | None = None
    count: int
    stands_for: str


class Outcome(_Open):
    """A benchmark's result, as ``Result.plain`` writes it."""

    benchmark: str
    protocol: str
    score: float
    unit: str
    count: int
    missing: int = 0
    duplicates: int = 0
    unparsed: int = 0


class Results(_Open):
    """``results.json``. ``parts``: stage -> part -> (parameters, whether it trains)."""

    overall: float
    blank_image: float
    before_tuning: float
    seconds: float
    peak_memory_gib: float
    seed: int
    image_tokens: int
    ingredients: dict[str, Scores]
    novel: dict[str, float | None]
    benchmarks: dict[str, Outcome]
    parts: dict[str, dict[str, tuple[int, bool]]]
    timeline: list[tuple[str, float]]


class Sample(_Open):
    """One of ``masks.json``: ``tokens`` are (text, supervised, stands for the image)."""

    source: str
    stage: str
    tokens: list[tuple[str, int | bool, int | bool]]
    image: str | None = None


@dataclass(frozen=True)
class Demo:
    """A finished run. ``questions``: of each ingredient, in the order of their file; ``answers``: answerer ->
    question id -> record, of ingredients with pictures; ``losses``: stage -> (steps, losses), in the order of training;
    ``records``: stage -> source -> records in its file."""

    run: Path
    recipe: Recipe
    results: Results
    losses: dict[str, tuple[list[int], list[float]]]
    records: dict[str, dict[str, int]]
    questions: dict[str, list[Record]]
    answers: dict[str, dict[str, Record]]
    samples: list[Sample]

    def picture(self, path: str) -> str:
        """A picture of the run as a data URI; ``path`` is relative to the run or to its world."""
        for place in (self.run / path, self.run / "world" / path):
            if place.is_file():
                kind = {".png": "png", ".webp": "webp"}.get(place.suffix.lower(), "jpeg")
                return f"data:image/{kind};base64,{base64.b64encode(place.read_bytes()).decode('ascii')}"
        raise BadRequest(f"no picture at {self.run / path}, nor in {self.run / 'world'}")


def read_demo(run: Path) -> Demo:
    """Reads a finished demo. Raises :class:`BadRequest` naming the file that is missing, or what is wrong in it."""
    if not run.is_dir():
        raise BadRequest(f"no demo at {run}; make one with `llavakit demo --out {run}`")
    results = Results.parse(_mapping(run / "results.json"), str(run / "results.json"))
    recipe = Recipe.load(run / "run.json")
    questions = {name: read_jsonl(run / "world" / "test" / f"{name}.jsonl") for name in results.ingredients}
    # Only answers about pictures are shown. Text alone has none to blank, so nobody need have been asked.
    pictured = [name for name, asked in questions.items() if any(question["image"] for question in asked)]
    answers: dict[str, dict[str, Record]] = {who: {} for who in ANSWERERS}
    for who, name in itertools.product(ANSWERERS, pictured):
        path = run / "evaluation" / who / name / "answers.jsonl"
        answers[who] |= {str(record["question_id"]): record for record in read_jsonl(path)}
    masks = read_json(run / "masks.json")
    return Demo(
        run=run,
        recipe=recipe,
        results=results,
        losses=_losses(run / "backbones" / "metrics.jsonl") | _losses(run / "metrics.jsonl"),
        records={
            name: {source: _count(run, spec.path) for source, spec in stage.data.items()}
            for name, stage in recipe.stages.items()
        },
        questions=questions,
        answers=answers,
        samples=[Sample.parse(sample, f"{run / 'masks.json'}, sample {n}") for n, sample in enumerate(masks, 1)],
    )


def _mapping(path: Path) -> Mapping[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadRequest(f"{path} must hold an object at its top, not {type(value).__name__}")
    return value


def _losses(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for record in read_jsonl(path):
        steps, losses = found.setdefault(record["stage"], ([], []))
        steps.append(record["step"])
        losses.append(record["loss"])
    if not found:
        raise BadRequest(f"{path} holds no step of any training")
    return found


def _count(run: Path, path: str) -> int:
    """Records of a training file. The recipe names it as it was called on the machine and from the folder of the
    run; a demo that has moved still has the file in its own world."""
    name = Path(path).name
    for place in (run / "world" / "tune" / name, run / "world" / name, Path(path)):
        if place.is_file():
            return len(read_jsonl(place) if place.suffix == ".jsonl" else read_json(place))
    raise BadRequest(f"no file at {path}, nor {name} in {run / 'world'}")
