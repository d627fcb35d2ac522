"""Every row of the parity table is within its bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rows import Row, all_rows, row

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "parity.py"


@pytest.mark.parametrize("claim", all_rows(), ids=lambda claim: claim.what)
def test_row(claim: Row) -> None:
    assert claim.measure() <= claim.bound


def test_the_script_prints_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, SCRIPT, "squash,"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    header, _, *lines = ran.stdout.splitlines()
    assert header.split() == ["what", "against", "worst", "difference", "bound", "pass", "time"]
    assert len(lines) == 1 and lines[0].startswith("pixels, squash") and " yes " in lines[0]


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows are named"):
        row(all_rows()[0].what, against="", bound=0)(lambda: 0.0)
