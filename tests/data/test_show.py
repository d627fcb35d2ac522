"""The page of a mixture: what is learned is marked, what is cut is seen, records can be filtered."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llavakit import cli
from llavakit.chat.conversation import question
from llavakit.chat.template import get_template
from llavakit.data.keep import Keep
from llavakit.data.mixture import SourceSpec
from llavakit.data.show.choose import choose
from llavakit.data.show.tokens import token_runs, word_runs
from llavakit.model.encode import Codec, encode
from tests.data.raw import llava, put
from tests.data.samples import records, write


def test_runs_are_the_text_and_the_mask(toy: Any) -> None:
    _, codec = toy
    said = question("Über 猫 🎉 <tag> {x}  two\n\nlines?").answer("Yes: 🎉é.").ask("And?").answer("No")
    runs, example = token_runs(said, codec)
    text = "".join(piece for run in runs for piece in run.pieces)
    assert "Über 猫 🎉 <tag> {x}  two\n\nlines? ASSISTANT: Yes: 🎉é." in text
    learned = ["".join(run.pieces) for run in runs if run.kind == "learned"]
    assert learned == [" Yes: 🎉é.</s>", " No</s>"]
    assert sum(run.count for run in runs) == len(example)
    assert sum(run.count for run in runs if run.kind == "learned") == example.supervised
    assert ["".join(run.pieces) for run in word_runs(said, codec.template) if run.kind == "learned"] == learned


def test_pictures_and_cuts(toy: Any, tmp_path: Path) -> None:
    _, codec = toy
    from llavakit.data.sources.llava import LlavaSource

    said = LlavaSource(write(tmp_path, 1), image_first=True)[0]
    short: Codec = replace(codec, max_length=len(encode(said, codec)) - 3)
    runs, _ = token_runs(said, short)
    assert [run.count for run in runs if run.kind == "image"] == [codec.image_tokens]
    assert sum(run.count for run in runs if run.cut) == 3
    assert [run.kind for run in word_runs(said, codec.template)].count("image") == 1


def test_choice_is_of_every_source_and_problem_and_a_function_of_the_seed(tmp_path: Path) -> None:
    made = records(40, tmp_path)
    for number, record in enumerate(made):
        record["source"] = "rare" if number == 37 else "common"
    path = put(tmp_path / "a.json", made)
    specs = {"a": SourceSpec(path=str(path))}
    problems = {(str(path.absolute()), 21): [("too-long", "x")], (str(path.absolute()), 22): [("too-long", "x")]}
    chosen = choose(specs, 3, 10, problems, seed=0)
    shown = [item.index for _, _, item in chosen.shown]
    assert len(shown) == len(set(shown)) and {37, 21, 22} <= set(shown) and len(shown) <= 6
    assert chosen.counts == {"common": 39, "rare": 1} and len(chosen.measured) == 10
    again, other = (choose(specs, 3, 10, problems, seed=seed) for seed in (0, 1))
    assert [i.index for *_, i in again.measured] == [i.index for *_, i in chosen.measured]
    assert [i.index for *_, i in other.measured] != [i.index for *_, i in chosen.measured]
    kept = choose({"a": SourceSpec(path=str(path), keep=Keep(pictured=False))}, 50, 0, {}, seed=0)
    assert len(kept.shown) == 10


def test_the_page(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = records(20, tmp_path)
    made.append(llava("evil<script>", None, "<b>Hi</b>", "</script><img src=x>"))
    made.append(llava("gone", "gone.png", "<image>\nWhat?", "That."))
    path = put(tmp_path / "a.json", made)
    assert cli.main(["data", "doctor", str(path), "--workers", "0"]) == 1
    out = tmp_path / "page.html"
    assert cli.main(["data", "show", str(path), "--tokenizer", str(checkpoint), "--each", "50", "--out", str(out)]) == 0
    page = out.read_text()
    assert page.count('<article class="sample') == 22 and page.count("data:image/jpeg;base64,") == 15
    assert "picture × 16" in page and "patch grid, 4 × 4" in page and "<script>\nconst source" in page
    assert "evil<script>" not in page and "<img src=x>" not in page and "<b>Hi</b>" not in page
    assert re.search(r'data-problems=" missing-image "', page) and '<option value="missing-image">' in page
    assert "Packed rows" in page and "22 records chosen by chance" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "it needs nothing beside it"


def test_without_a_tokenizer_words_stand_for_tokens(tmp_path: Path) -> None:
    path, out = write(tmp_path), tmp_path / "page.html"
    argv = ["data", "show", str(path), "--as", "llava15-7b", "--stage", "align", "--out", str(out)]
    assert cli.main(argv) == 0
    page = out.read_text()
    assert "no tokenizer was given" in page and "patch grid, 24 × 24" in page and "Packed rows" not in page
    assert get_template("plain").name in page


def test_a_recipes_stage_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path)
    out = tmp_path / "page.html"
    recipe = {
        "name": "mine",
        "model": {"vision": "openai/clip-vit-large-patch14-336", "language": "x"},
        "stages": {
            "tune": {
                "data": {"own": {"path": str(path)}},
                "template": "chatml",
                "train": {"connector": 1e-3},
                "batch_size": 4,
            }
        },
    }
    put(tmp_path / "recipe.json", recipe)
    assert cli.main(["data", "show", str(tmp_path / "recipe.json"), "--out", str(out)]) == 0
    assert "chatml" in out.read_text() and ">own (12)<" in out.read_text()
    assert cli.main(["data", "show", str(path), "--stage", "tunes", "--out", str(out)]) == 2
    assert "did you mean 'tune'" in capsys.readouterr().err
    assert cli.main(["data", "show", str(tmp_path / "none.json"), "--out", str(out)]) == 2
