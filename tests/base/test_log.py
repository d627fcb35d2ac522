"""What is shown: message lines on standard error, columns that align."""

from __future__ import annotations

import pytest

from llavakit.base.log import log, metrics_line, progress, table


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.info("one line")
    log.debug("not this")
    captured = capsys.readouterr()
    assert captured.err == "one line\n" and captured.out == ""


def test_one_rank_speaks_and_all_warn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    log.info("progress")
    log.warning("trouble")
    assert capsys.readouterr().err == "trouble\n"


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), desc="counting")) == [0, 1, 2]
    bar = progress(total=2, unit="step")
    bar.update()
    bar.set_postfix_str("loss 1.0")
    bar.close()
    assert capsys.readouterr().err == ""


def test_metrics_line() -> None:
    assert metrics_line({"step": 20, "loss": 1.23456, "lr": 1e-5}) == "step     20  loss  1.235  lr  1e-05"
    first, second = metrics_line({"step": 9, "loss": 10.0}), metrics_line({"step": 1000, "loss": 0.001234})
    assert first.index("loss") == second.index("loss")


def test_table() -> None:
    assert table([["vqa", "61.3", "2 GiB"], ["pope", "7", "12 GiB"]], ["name", "score", "memory"]) == (
        "name  score  memory\n----  -----  ------\nvqa    61.3   2 GiB\npope      7  12 GiB"
    )
    assert (
        table([["7", "-"], ["-1.5e-3", "n/a"]], ["a", "b"]) == "      a    b\n-------  ---\n      7    -\n-1.5e-3  n/a"
    )
    assert table([["-no-number", "3 red cars"]], ["a", "b"]).endswith("\n-no-number  3 red cars")
    assert table([], ["name", "score"]) == "name  score\n----  -----"
