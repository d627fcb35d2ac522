"""Two runs beside each other, and the report's page."""

import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.cli import main
from llavakit.eval.benchmark import Result
from llavakit.eval.compare import compare
from llavakit.eval.held import read_run
from llavakit.eval.published import own_figures, published

from .conftest import Put

POPE = ("random", "popular", "adversarial")


@pytest.fixture
def runs(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[Path]:
    """POPE (forty pictures, three questions each) and questions of one's own, answered by two: the second is better at
    POPE, and both the same at the others, one of which is not scored."""
    for n in range(40):
        Image.new("RGB", (40, 30), (6 * n, 90, 90)).save(put(f"data/pope/val2014/{n}.jpg"), "JPEG")
    for category in POPE:
        items = [{"question_id": n + 1, "image": f"{n % 40}.jpg", "text": f"Is there a {n} in the image?",
                  "label": ("yes", "no")[n % 2]} for n in range(120)]  # fmt: skip
        put(f"data/pope/coco_pope_{category}.json", items)
    own: list[dict[str, Any]] = [
        {"question_id": n, "text": f"<b>{n}</b>?", "metric": "exact", "answers": ["x & y"]} for n in range(9)
    ]
    put("data/records/questions.jsonl", [*own, {"question_id": 9, "text": "Why?", "metric": "open", "answers": []}])
    rng = random.Random(0)
    for name, share in (("one", 0.6), ("two", 0.9)):
        first = {"random": 10_000_000, "popular": 20_000_000, "adversarial": 0}
        lines = []
        for category in POPE:
            for n in range(120):
                right = ("Yes", "No")[n % 2]
                text = right if rng.random() < share else {"Yes": "No", "No": "Yes"}[right]
                lines.append({"question_id": first[category] + n + 1, "text": text})
        put(f"said/{name}/pope.jsonl", lines)
        said = ["x & y" if n % 3 else "<script>" for n in range(9)]
        put(f"said/{name}/records.jsonl", [{"question_id": n, "text": t} for n, t in enumerate([*said, "So."])])
        words = [name, "--answers", tmp_path / "said" / name, "--bench", "all", "--data", tmp_path / "data", "--out"]
        assert main(["eval", *map(str, words), str(tmp_path / name)]) == 0
    capsys.readouterr()
    return [tmp_path / "one", tmp_path / "two"]


class Page(HTMLParser):
    """Text, pictures and what is fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_better_model_is_found_and_the_equal_one_is_not(runs: list[Path]) -> None:
    pope, own = compare(*map(read_run, runs))
    assert (pope.folder, pope.count, pope.unpaired) == ("pope", 360, 0)
    for side, place in ((pope.first, runs[0]), (pope.second, runs[1])):
        assert side == pytest.approx(json.loads((place / "pope/result.json").read_text())["score"])
    assert pope.difference > 0.2 and pope.interval is not None
    assert 0 < pope.interval[0] < pope.difference < pope.interval[1]
    assert pope.p <= 1e-3 and pope.p_corrected == pytest.approx(2 * pope.p)
    assert pope.second_better > 3 * pope.first_better
    assert (own.difference, own.interval, own.p) == (0.0, (0.0, 0.0), 1.0)
    assert own.first == pytest.approx(100 * 6 / 9), "the question that is not scored does not count"


def test_the_command_and_its_files(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert main(["compare", *map(str, runs), "--out", str(out)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["benchmark", "questions", "one", "two"] and table[2].startswith("pope")
    assert main(["compare", *map(str, runs), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads(out.with_suffix(".json").read_text())["comparison"] == told
    assert "| pope |" in out.with_suffix(".md").read_text()
    page = Page(out.read_text())
    assert not [a for _, a in page.tags if "src" in a and not str(a["src"]).startswith("data:image/jpeg;base64,")]
    assert not [tag for tag, attrs in page.tags if tag in ("link", "base") or "href" in attrs]
    cards = [attrs for tag, attrs in page.tags if tag == "article"]
    assert {c["data-kind"] for c in cards if c["data-bench"] == "pope"} == {"first", "second", "both"}
    assert {c["data-kind"] for c in cards if c["data-bench"] == "records"} == {"both"}
    assert sum(tag == "img" for tag, _ in page.tags) == sum(c["data-bench"] == "pope" for c in cards) > 10
    assert "<b>0</b>?" in page.text and "Why?" not in page.text
    assert out.read_text().count("<script>") == 1, "what a model says is text"


def test_the_report_of_one_run(runs: list[Path]) -> None:
    page = Page((runs[0] / "report.html").read_text())
    assert "Wrong answers" in page.text and "POPE adversarial" in page.text
    figures = json.loads((runs[0] / "report.json").read_text())["runs"][0]
    result = json.loads((runs[0] / "pope/result.json").read_text())
    assert figures["published_columns"]["pope_random"] == pytest.approx(100 * result["metrics"]["random_f1"])
    assert "LLaVA-1.5 13B | 87.1 | 86.2 | 84.5 |" in (runs[0] / "report.md").read_text()


def test_without_the_benchmarks_files_the_page_says_what_is_missing(
    runs: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(tmp_path / "data/pope/val2014")
    out = tmp_path / "report.html"
    assert main(["compare", *map(str, runs), "--out", str(out)]) == 0
    assert "pictures of pope were not found" in Page(out.read_text()).text
    shutil.rmtree(tmp_path / "data")
    assert main(["compare", *map(str, runs), "--out", str(out)]) == 0


def test_runs_that_cannot_be_compared(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no folder at"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="no result in"):
        read_run(tmp_path / "said")
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    shutil.rmtree(other / "pope")
    (one,) = compare(read_run(runs[0]), read_run(other))
    assert one.folder == "records"
    lines = (other / "records/answers.jsonl").read_text().splitlines()
    (other / "records/answers.jsonl").write_text("\n".join(lines[1:]) + "\n")
    (one,) = compare(read_run(runs[0]), read_run(other))
    assert (one.count, one.unpaired) == (9, 1)
    shutil.rmtree(other / "records")
    shutil.copytree(runs[1] / "pope", other / "pope")
    (other / "pope/answers.jsonl").write_text((runs[1] / "records/answers.jsonl").read_text())
    with pytest.raises(BadRequest, match="did not ask the same questions"):
        compare(read_run(runs[0]), read_run(other))


def test_the_published_table_is_whole() -> None:
    keys = {column.key for column in published().columns}
    for model in published().models:
        assert model.scores.keys() <= keys and set(model.seen) <= model.scores.keys()
    assert set(published().drawn) <= {model.name for model in published().models}


def test_what_was_asked_in_another_way_stands_in_no_published_column() -> None:
    ways = [Result("textvqa", way, score, "fraction", {}, 1) for way, score in (("no_ocr", 0.4), ("strict", 0.5))]
    assert own_figures(ways[:1]) == {}
    assert own_figures(ways)["textvqa"].score == 50.0
