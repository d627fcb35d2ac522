"""The benchmarks of inference run, at a size that shows nothing but that, and our answers are transformers'."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("name", "lines"), [("vqa", 2), ("chat", 3)])
def test_it_runs(name: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    asked = ["--size", "toy", "--times", "1", "--dtypes", "float32", "--clock", "cpu"]
    monkeypatch.setattr("sys.argv", [name, *asked])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"))
    printed = capsys.readouterr().out
    assert len(re.findall(r"^.*float32 +[\d.]+x of .*same 1\.0000 +ours [\d.]+ s.*$", printed, re.M)) == lines, printed
