from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl, write_json, write_text
from llavakit.demo.report import write_report
from llavakit.demo.report_cards import cards, mark_of, token_runs
from llavakit.demo.report_plot import curve, ticks
from llavakit.demo.report_read import Sample, read_demo
from llavakit.world.ask.table import INGREDIENTS
from tests.demo.made_up import NAMES, NASTY, make_demo, recipe


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
