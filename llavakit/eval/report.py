"""Results as tables: aligned plain text for a terminal, Markdown for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llavakit.base.log import table
from llavakit.eval.benchmark import STOPS, Result

if TYPE_CHECKING:
    from llavakit.eval.compare import Comparison

_HEAD = ("benchmark", "protocol", "count", "score", "95 % interval", "metrics", "doubts")
_SHOWN = 6


def text_table(results: Iterable[Result]) -> str:
    """Aligned columns."""
    return table([_row(result) for result in results], _HEAD)


def markdown_table(results: Iterable[Result]) -> str:
    """The same rows as a Markdown table."""
    return markdown(_HEAD, [_row(result) for result in results])


def comparison_table(comparisons: Iterable[Comparison], names: Sequence[str]) -> str:
    """Two runs, aligned."""
    head, rows = comparison_rows(comparisons, names)
    return table(rows, head)


def comparison_rows(comparisons: Iterable[Comparison], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of two runs."""
    head = ["benchmark", "questions", *names, "difference", "95 % interval", "p", "p corrected",
            "first better", "second better"]  # fmt: skip
    rows = []
    for one in comparisons:
        digits = 4 if one.unit == "fraction" else 2
        between = "" if one.interval is None else " to ".join(f"{end:+.{digits}f}" for end in one.interval)
        scores = [f"{one.first:.{digits}f}", f"{one.second:.{digits}f}", f"{one.difference:+.{digits}f}"]
        chances = [f"{one.p:.4f}", f"{one.p_corrected:.4f}"]
        better = [str(one.first_better), str(one.second_better)]
        rows.append([one.folder, str(one.count), *scores, between, *chances, *better])
    return head, rows


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def doubts(result: Result, digits: int) -> list[str]:
    """What could cast doubt on a score, in words."""
    counts = {"missing": result.missing, "duplicates": result.duplicates, "unparsed": result.unparsed}
    said = [f"{count} {name}" for name, count in counts.items() if count]
    for name in ("strict", "official"):
        # Beyond the digits to which some official tools round.
        if name in result.metrics and abs(result.metrics[name] - result.score) > 10.0 ** (1 - digits):
            said.append(f"{name} count differs: {result.metrics[name]:.{digits}f}")
    if STOPS in result.metrics:
        said.append("the official code stops on these answers")
    return said


def _row(result: Result) -> tuple[str, ...]:
    digits = 4 if result.unit == "fraction" else 2
    metrics = [f"{name} {value:.{digits}f}".removesuffix(".00") for name, value in result.metrics.items()]
    more = [f"{len(metrics) - _SHOWN} more"] if len(metrics) > _SHOWN else []
    return (
        result.benchmark,
        result.protocol,
        str(result.count),
        f"{result.score:.{digits}f} {result.unit}",
        "" if result.interval is None else " to ".join(f"{end:.{digits}f}" for end in result.interval),
        ", ".join(metrics[:_SHOWN] + more),
        ", ".join(doubts(result, digits)) or "none",
    )
