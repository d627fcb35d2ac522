"""A directory as a finished demo leaves it: a real small world; answers, losses and figures made up."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.base.files import read_json, read_jsonl, write_json, write_text
from llavakit.data.mixture import SourceSpec
from llavakit.eval.benchmark import Result
from llavakit.eval.metrics import METRICS
from llavakit.train.backbones_spec import Backbones
from llavakit.train.stage import Recipe, Stage
from llavakit.world.ask.table import CAPTION, INGREDIENTS
from llavakit.world.build import build

NAMES = [CAPTION.name, *INGREDIENTS]
NASTY = '<script>alert("x")</script> & </style>'


def make_demo(run: Path) -> Path:
    world = run / "world"
    build(world, 0, 60, 30, workers=1, questions_per_ingredient=24, benchmark_questions=5, conversations=50)
    recipe(world).save(run / "run.json")
    write_losses(run / "backbones" / "metrics.jsonl", {"language": (300, 7.4, 1.2), "clip": (900, 4.8, 0.4)}, ["all"])
    stages = {"align": (120, 5.1, 0.8), "tune": (420, 2.9, 0.31)}
    write_losses(run / "metrics.jsonl", stages, ["connector", "language_model"])
    ingredients = {}
    for name in NAMES:
        questions = read_jsonl(world / "test" / f"{name}.jsonl")
        pictured = name == CAPTION.name or INGREDIENTS[name].pictured
        means: dict[str, float | None] = {who: write_answers(run, who, name, questions) for who in ("tuned", "before")}
        means["blank"] = write_answers(run, "blank", name, questions) if pictured else None
        ingredients[name] = {
            "accuracy": means["tuned"],
            "blank_image": means["blank"],
            "before_tuning": means["before"],
            "count": len(questions),
            "stands_for": CAPTION.stands_for if name == CAPTION.name else INGREDIENTS[name].stands_for,
        }
    sizes = {"vision_tower": 1_912_320, "connector": 115_200, "language_model": 4_730_112}
    unknown_to_the_page = {"memory_is_of": "the process"}
    results = unknown_to_the_page | {
        "overall": 0.873,
        "blank_image": 0.402,
        "before_tuning": 0.051,
        "seconds": 318.4,
        "peak_memory_gib": 2.314,
        "seed": 0,
        "image_tokens": 64,
        "ingredients": ingredients,
        "novel": {"familiar": 0.88, "novel": 0.841},
        "benchmarks": {
            name: Result(name, "standard", score, "percent", {}, 60, unparsed=n).plain()
            for n, (name, score) in enumerate({"vqav2": 86.2, "gqa": 84.0, "pope": 91.33, "textvqa": 79.5}.items())
        },
        "parts": {
            "align": {name: [size, name == "connector"] for name, size in sizes.items()},
            "tune": {name: [size, name != "vision_tower"] for name, size in sizes.items()},
        },
        "timeline": [
            ["draw the world", 14.2],
            ["language model", 61.0],
            ["CLIP", 78.5],
            ["align", 41.3],
            ["instruction tuning", 96.1],
            ["evaluation", 24.8],
        ],
    }
    write_json(run / "results.json", results)
    write_json(run / "masks.json", masks(world))
    return run


def recipe(world: Path) -> Recipe:
    def stage(template: str, files: list[str], train: dict[str, float], image: str) -> Stage:
        data = {Path(f).stem: SourceSpec(path=str(world / f), images=str(world)).plain() for f in files}
        if "detail" in data:
            data["detail"]["weight"] = 0.5
        plain = {"data": data, "template": template, "train": train, "batch_size": 32, "epochs": 2.0, "image": image}
        return Stage.parse(plain)

    return Recipe(
        name="demo",
        backbones=Backbones(captions=SourceSpec(path=str(world / "align.json"), images=str(world))),
        stages={
            "align": stage("plain", ["align.json"], {"connector": 1e-3}, "crop"),
            "tune": stage(
                "vicuna_v1",
                [f"tune/{name}.json" for name in INGREDIENTS],
                {"connector": 2e-4, "language_model": 2.5e-4},
                "pad",
            ),
        },
    )


def write_losses(path: Path, stages: dict[str, tuple[int, float, float]], rates: list[str]) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for stage, (steps, first, last) in stages.items():
        for step in range(steps):
            loss = last + (first - last) * math.exp(-5 * step / steps) * (1 + 0.08 * rng.standard_normal())
            lines.append({"stage": stage, "step": step + 1, "loss": loss, **{f"lr/{rate}": 1e-3 for rate in rates}})
    write_text(path, "".join(f"{json.dumps(line)}\n" for line in lines))


def write_answers(run: Path, who: str, name: str, questions: list[dict[str, Any]]) -> float:
    """Judged by the real metrics; ``tuned`` is right but for every fifth, the others seldom."""
    lines, scores = [], []
    for n, question in enumerate(questions):
        right = n % 5 != 3 if who == "tuned" else n % 4 == (1 if who == "blank" else 9)
        text = said(question, right)
        verdict = METRICS[question["metric"]](text, {"others": [], "pattern": "", **question})
        judged = {"text": text, "parsed": verdict.parsed, "score": verdict.score, "group": question["kind"]}
        lines.append({"question_id": question["question_id"], "prompt": question["text"], **judged})
        scores.append(verdict.score)
    write_text(run / "evaluation" / who / name / "answers.jsonl", "".join(f"{json.dumps(x)}\n" for x in lines[::-1]))
    return sum(scores) / len(scores)


def said(question: dict[str, Any], right: bool) -> str:
    answers = question["answers"]
    if question["metric"] == "phrases":
        return f"There is {', and '.join(answers if right else answers[:1])}."
    if question["metric"] == "box":
        return str(answers[0]) if right else "[0.10, 0.55, 0.42, 0.90]"
    if question["metric"] == "contains":
        return f"I think the {answers[0]}." if right else NASTY
    return str(answers[0]) if right else "Ring"


def masks(world: Path) -> list[dict[str, Any]]:
    made = []
    for stage, file in (("align", "align"), ("tune", "tune/vqa"), ("tune", "tune/region"), ("tune", "tune/text_only")):
        record = read_json(world / f"{file}.json")[0]
        tokens: list[list[Any]] = [["<s>", 0, 0]]
        for turn in record["conversations"]:
            learned = int(turn["from"] == "gpt")
            head, mark, text = turn["value"].rpartition("<image>")
            tokens += [["<image>", 0, 1]] * (64 if mark else 0)
            tokens += [[piece, learned, 0] for piece in re.findall(r"\s?\w+|\s?\W|\n", head + text)]
            tokens += [["</s>", 1, 0]] if learned else []
        made.append({"source": Path(file).name, "stage": stage, "tokens": tokens, "image": record.get("image")})
    made.append({"source": "nasty", "stage": "tune", "tokens": [[NASTY, 1, 0]], "image": None})
    return made
