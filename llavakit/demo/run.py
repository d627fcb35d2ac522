"""``llavakit demo``: build a world, train on it, measure against two honest baselines, write a report."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from llavakit.base.files import write_json
from llavakit.base.log import log, table
from llavakit.chat.conversation import Conversation, ImageRef
from llavakit.chat.template import get_template
from llavakit.demo.report import write_report
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.eval.benchmark import Answer, Question, Result
from llavakit.eval.run import BENCHMARKS, evaluate
from llavakit.model import checkpoint
from llavakit.model.parts import PARTS, count, part
from llavakit.recipes.demo import recipe as demo_recipe
from llavakit.train.claim import claim
from llavakit.train.run import run_stages
from llavakit.train.show import token_view
from llavakit.world.ask.table import CAPTION, INGREDIENTS
from llavakit.world.build import build

TRAIN, TEST, CONVERSATIONS, ASKED = 6000, 400, 3500, 60
BENCHES = ("vqav2", "gqa", "pope", "textvqa", "scienceqa")
ANSWER = Decoding(max_new_tokens=128)


def demo(out: Path, seed: int = 0, resume: bool = False) -> dict[str, Any]:
    """Runs everything in ``out`` and returns what ``out/results.json`` holds; with ``resume``, what is left of it.

    Raises :class:`BadRequest` when ``out`` holds a demo already and ``resume`` is not given, or holds anything else.
    """
    clock = Timeline()
    world = out / "world"
    recipe = demo_recipe(str(world), seed)
    claim(recipe, out, resume)
    with clock("draw the world"):
        build(
            world,
            seed,
            TRAIN,
            TEST,
            conversations=CONVERSATIONS,
            questions_per_ingredient=ASKED,
            benchmark_questions=ASKED,
        )
    model_path = run_stages(recipe, out, clock)
    with clock("evaluate"):
        scores = {
            "before": _ingredients(_engine(out / "stages" / "align"), world, out / "evaluation" / "before"),
            "tuned": _ingredients(_engine(model_path), world, out / "evaluation" / "tuned"),
            "blank": _ingredients(_blank(_engine(model_path)), world, out / "evaluation" / "blank"),
        }
    with clock("official benchmarks"):
        benchmarks = _official(_engine(model_path), world / "benchmarks")
    results = _results(scores, benchmarks, out, recipe.stages) | {
        "seed": seed,
        "seconds": round(clock.total(), 1),
        "peak_memory_gib": round(_peak_memory(), 2),
        "timeline": clock.phases,
    }
    samples = token_view(recipe, out / "backbones", per_stage=3)
    for sample in samples:
        sample["image"] = sample["image"] and Path(sample["image"]).relative_to(out).as_posix()
    write_json(out / "masks.json", samples)
    write_json(out / "results.json", results)
    write_report(out)
    return results


def summary(results: Mapping[str, Any]) -> str:
    """The table that the demo prints."""
    rows = [
        [name, *(f"{100 * row[key]:.1f}" for key in ("accuracy", "blank_image", "before_tuning")), str(row["count"])]
        for name, row in results["ingredients"].items()
    ]
    overall = [f"{100 * results[key]:.1f}" for key in ("overall", "blank_image", "before_tuning")]
    rows.append(["overall", *overall, str(sum(row["count"] for row in results["ingredients"].values()))])
    return table(rows, ["held-out accuracy, %", "tuned", "blank image", "before tuning", "questions"])


class Timeline:
    """Seconds of each phase, in order."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.phases: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        log.info(f"[{time.perf_counter() - self.start:4.0f} s, peak {_peak_memory():.1f} GiB] {phase}")
        start = time.perf_counter()
        yield
        self.phases.append((phase, round(time.perf_counter() - start, 1)))

    def total(self) -> float:
        return time.perf_counter() - self.start


def _engine(path: Path) -> Answer:
    model, codec = checkpoint.load(path)
    engine = Engine(model, codec.using(get_template("vicuna_v1")), batch_size=64)
    return lambda conversations: engine.answer(conversations, ANSWER)


def _blank(answer: Answer) -> Answer:
    """The same model, shown an empty gray picture instead of every picture."""
    gray = ImageRef(Image.new("RGB", (224, 224), (122, 116, 104)))

    def blanked(conversations: Iterable[Conversation]) -> Iterator[str]:
        return answer(replace(c, images=(gray,) * len(c.images)) for c in conversations)

    return blanked


def _ingredients(answer: Answer, world: Path, out: Path) -> dict[str, Result]:
    benchmark = BENCHMARKS["records"]
    return {
        name: evaluate(benchmark, benchmark.load(world / "test" / f"{name}.jsonl", world), answer, out / name)
        for name in (CAPTION.name, *INGREDIENTS)
    }


def _official(answer: Answer, data: Path) -> dict[str, Any]:
    results = {}
    for name in BENCHES:
        questions: list[Question] = BENCHMARKS[name].load(data / name)
        results[name] = evaluate(BENCHMARKS[name], questions, answer).plain()
    return results


def _results(
    scores: Mapping[str, Mapping[str, Result]], benchmarks: dict[str, Any], out: Path, stages: Mapping[str, Any]
) -> dict[str, Any]:
    ingredients: dict[str, dict[str, Any]] = {
        name: {
            "accuracy": scores["tuned"][name].score / 100,
            "blank_image": scores["blank"][name].score / 100,
            "before_tuning": scores["before"][name].score / 100,
            "count": result.count,
            "stands_for": (CAPTION if name == CAPTION.name else INGREDIENTS[name]).stands_for,
        }
        for name, result in scores["tuned"].items()
    }
    total = sum(row["count"] for row in ingredients.values())

    def mean(key: str) -> float:
        return round(sum(row[key] * row["count"] for row in ingredients.values()) / total, 4)

    model, _ = checkpoint.load(out / "model")
    return {
        "overall": mean("accuracy"),
        "blank_image": mean("blank_image"),
        "before_tuning": mean("before_tuning"),
        "image_tokens": model.image_tokens,
        "ingredients": ingredients,
        "novel": _novel(out / "evaluation" / "tuned", out / "world"),
        "benchmarks": benchmarks,
        "parts": {
            stage: {name: [count(part(model, name)), name in value.train] for name in PARTS}
            for stage, value in stages.items()
        },
    }


def _novel(answers: Path, world: Path) -> dict[str, float]:
    """Accuracy on questions about combinations of colour and shape that training never showed, and on the rest."""
    scores: dict[bool, list[float]] = {False: [], True: []}
    for name in (CAPTION.name, *INGREDIENTS):
        asked = (world / "test" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        novel = {str(record["question_id"]): record["novel"] for record in map(json.loads, asked)}
        for line in (answers / name / "answers.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            scores[bool(novel[str(record["question_id"])])].append(record["score"])
    return {
        name: round(sum(s) / max(1, len(s)), 4) for name, s in (("familiar", scores[False]), ("novel", scores[True]))
    }


def _peak_memory() -> float:
    """GiB at most: of this process and its largest child, as if both were largest at once (one pretrains beside it)."""
    kib = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kib / 2**20
