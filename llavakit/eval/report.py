"""Results as a table: aligned plain text for a terminal, Markdown for a page."""

from __future__ import annotations

from collections.abc import Iterable

from llavakit.base.log import table
from llavakit.eval.benchmark import STOPS, Result

_HEAD = ("benchmark", "protocol", "count", "score", "95 % interval", "metrics", "doubts")
_SHOWN = 6


def text_table(results: Iterable[Result]) -> str:
    """Aligned columns."""
    return table([_row(result) for result in results], _HEAD)


def markdown_table(results: Iterable[Result]) -> str:
    """The same rows as a Markdown table."""
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, results)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _row(result: Result) -> tuple[str, ...]:
    digits = 4 if result.unit == "fraction" else 2
    metrics = [f"{name} {value:.{digits}f}".removesuffix(".00") for name, value in result.metrics.items()]
    more = [f"{len(metrics) - _SHOWN} more"] if len(metrics) > _SHOWN else []
    doubts = {"missing": result.missing, "duplicates": result.duplicates, "unparsed": result.unparsed}
    said = [f"{count} {name}" for name, count in doubts.items() if count]
    for name in ("strict", "official"):
        # Beyond the digits to which some official tools round.
        if name in result.metrics and abs(result.metrics[name] - result.score) > 10.0 ** (1 - digits):
            said.append(f"{name} count differs: {result.metrics[name]:.{digits}f}")
    if STOPS in result.metrics:
        said.append("the official code stops on these answers")
    return (
        result.benchmark,
        result.protocol,
        str(result.count),
        f"{result.score:.{digits}f} {result.unit}",
        "" if result.interval is None else "{:.{digits}f} to {:.{digits}f}".format(*result.interval, digits=digits),
        ", ".join(metrics[:_SHOWN] + more),
        ", ".join(said) or "none",
    )
