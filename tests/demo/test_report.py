from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl, write_json, write_text
from llavakit.data.mixture import SourceSpec
from llavakit.demo.report import write_report
from llavakit.demo.report_cards import cards, mark_of, token_runs
from llavakit.demo.report_plot import curve, ticks
from llavakit.demo.report_read import Sample, read_demo
from llavakit.eval.benchmark import Result
from llavakit.eval.metrics import METRICS
from llavakit.train.backbones import Backbones
from llavakit.train.stage import Recipe, Stage
from llavakit.world.ask.table import CAPTION, INGREDIENTS
from llavakit.world.build import build

NAMES = [CAPTION.name, *INGREDIENTS]
NASTY = '<script>alert("x")</script> & </style>'
ROOT = Path(__file__).parents[2]


def make_demo(run: Path) -> Path:
    """A directory as a finished demo leaves it: a real small world; answers, losses and figures made up."""
    world = run / "world"
    build(world, 0, 60, 30, workers=1, questions_per_ingredient=24, benchmark_questions=5, documents=50)
    recipe(world).save(run / "run.json")
    write_losses(run / "backbones" / "metrics.jsonl", {"language": (300, 7.4, 1.2), "clip": (900, 4.8, 0.4)}, ["all"])
    stages = {"align": (120, 5.1, 0.8), "tune": (420, 2.9, 0.31)}
    write_losses(run / "metrics.jsonl", stages, ["connector", "language_model"])
    ingredients = {}
    for name in NAMES:
        questions = read_jsonl(world / "test" / f"{name}.jsonl")
        pictured = name == CAPTION.name or INGREDIENTS[name].pictured
        means = {who: write_answers(run, who, name, questions) for who in ("tuned", "before")}
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


class Page(HTMLParser):
    """Checks that tags balance; keeps what was opened."""

    void = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str, name: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and (not name or name in a.get("class", "").split())]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "run")


@pytest.fixture(scope="module")
def text(demo: Path) -> str:
    path = write_report(demo)
    assert path == demo / "report.html"
    return path.read_text(encoding="utf-8")


def test_structure(text: str) -> None:
    page = Page(text)
    assert len(page.of("li", "card")) == 24
    assert len(page.of("article", "stage")) == 2
    assert len(page.of("figure", "curve")) == 4
    assert len(page.of("article", "sample")) == 5
    assert len(page.of("li", "part")) == 6
    assert Counter(a["class"] for a in page.of("li", "part")) == {"node part frozen": 3, "node part trained": 3}
    words = {word.strip() for word in page.words}
    assert set(NAMES) <= words
    assert {"87.3\u202f%", "40.2\u202f%", "5:18", "2.31", "<image> × 64"} <= words
    assert {ingredient.stands_for for ingredient in INGREDIENTS.values()} <= words
    assert {"vqav2", "gqa", "pope", "textvqa", "familiar", "novel", "everything else"} <= words


def test_headings_go_down_one_by_one(text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(text).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_self_contained(text: str) -> None:
    page = Page(text)
    assert not page.of("script") and not page.of("link")
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "style"):
            assert "http" not in attributes.get(key, "").split(",")[0], attributes
    assert all(a["src"].startswith("data:image/") and a["alt"] for a in page.of("img"))
    assert not re.search(r"url\(|@import|https?://", text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in page.of("use")} <= set(ids)
    assert {a["aria-labelledby"] for a in page.of("section")} <= set(ids)
    assert len(text.encode()) < 1_500_000


def test_text_of_the_run_is_escaped(text: str) -> None:
    assert NASTY not in text and "<script" not in text
    assert NASTY in Page(text).words


def test_says_nothing_of_the_machine(demo: Path, text: str) -> None:
    assert str(demo) not in text and "<Undefined>" not in text and "None" not in text


def test_same_run_same_page(demo: Path, text: str) -> None:
    assert write_report(demo).read_text(encoding="utf-8") == text


def test_cards_are_spread_and_not_picked(demo: Path) -> None:
    made = cards(read_demo(demo))
    pictured = [name for name in NAMES if name != "text_only"]
    assert [card.ingredient for card in made] == [pictured[n % len(pictured)] for n in range(24)]
    first = read_jsonl(demo / "world" / "test" / "caption.jsonl")[0]
    assert made[0].text == first["text"] and made[0].image == first["image"]
    assert len({card.image for card in made}) == 24
    assert {card.mark for card in made} >= {"right", "wrong", "partly"}


def test_card_shows_boxes_and_option(demo: Path) -> None:
    made = cards(read_demo(demo))
    boxes = {region.role for card in made for region in card.regions}
    assert boxes <= {"asked", "truth", "answer"} and boxes
    assert all(re.fullmatch(r"[A-D]\. \w.*", card.truth) for card in made if card.ingredient == "choice")
    short = next(card for card in made if card.ingredient == "vqa")
    assert [form for _, form in short.question] == [False, True]


@pytest.mark.parametrize(
    "path",
    [
        "results.json",
        "run.json",
        "metrics.jsonl",
        "backbones/metrics.jsonl",
        "masks.json",
        "world/test/vqa.jsonl",
        "evaluation/blank/ocr/answers.jsonl",
        "world/tune/detail.json",
        "world/images/test/00000.jpg",
    ],
)
def test_missing_file(demo: Path, tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo, run)
    shutil.rmtree(run / "world" / "benchmarks")
    recipe(run / "world").save(run / "run.json")
    (run / path).unlink()
    with pytest.raises(BadRequest, match=re.escape(Path(path).name)):
        write_report(run)


def test_missing_answer_and_wrong_results(demo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo, run)
    write_text(run / "evaluation" / "tuned" / "vqa" / "answers.jsonl", "")
    with pytest.raises(BadRequest, match=r"tuned/vqa/answers\.jsonl: no answer to question 'vqa-"):
        write_report(run)
    write_json(run / "results.json", read_json(run / "results.json") | {"overall": "good"})
    with pytest.raises(BadRequest, match=r"results\.json: overall"):
        write_report(run)
    with pytest.raises(BadRequest, match="no demo at"):
        write_report(tmp_path / "nowhere")


def test_a_moved_demo_still_reports(demo: Path, tmp_path: Path, text: str) -> None:
    run = tmp_path / "elsewhere"
    shutil.copytree(demo, run)
    before = read_json(run / "run.json")
    write_json(run / "run.json", json.loads(json.dumps(before).replace(str(demo), "/gone")))
    page = write_report(run).read_text(encoding="utf-8")
    assert re.sub(r"hash \w+", "", page) == re.sub(r"hash \w+", "", text)


def test_marks_and_token_runs() -> None:
    assert [mark_of(score) for score in (1.0, 0.5, 0.0)] == ["right", "partly", "wrong"]
    tokens: list[tuple[str, int, int]] = [("<s>", 0, 0), *[("<image>", 0, 1)] * 3, ("\n", 0, 0), ("a", 1, 0)]
    runs = list(token_runs(Sample(source="s", stage="t", tokens=tokens)))
    assert [(run.kind, len(run.tokens)) for run in runs] == [("given", 1), ("image", 3), ("given", 1), ("learned", 1)]


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (7.4, ["0", "2", "4", "6"]),
        (0.9, ["0.00", "0.25", "0.50", "0.75"]),
        (2000, ["0", "500", "1,000", "1,500", "2,000"]),
    ],
)
def test_ticks(largest: float, labels: list[str]) -> None:
    found, end = ticks(largest, 4)
    assert [tick.label for tick in found] == labels
    assert end >= largest and all(0 <= tick.at <= 100 for tick in found)


def test_curve_keeps_peaks_and_survives_nonsense() -> None:
    losses = [1.0] * 2000
    losses[777] = 50.0
    drawn = curve("x", range(1, 2001), losses)
    assert re.search(r" 1\.9\d", drawn.raw)  # the peak, at the top
    assert len(drawn.raw) < 10_000
    broken = curve("x", [1, 2, 3, 4], [2.0, math.nan, 1.0, math.inf])
    assert "nan" not in broken.raw + broken.mean and broken.raw.count("M") == 2
