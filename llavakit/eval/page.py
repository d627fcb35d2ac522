"""A report of one run, or of two side by side: one HTML page, Markdown, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavakit.base import page
from llavakit.base.files import write_json, write_text
from llavakit.eval.benchmark import STOPS, Result
from llavakit.eval.cards import KINDS, shown
from llavakit.eval.compare import Comparison
from llavakit.eval.held import Run
from llavakit.eval.published import own_figures, published
from llavakit.eval.radar import radar
from llavakit.eval.report import comparison_rows, doubts, markdown, markdown_table

_FULL = {"percent": 100.0, "fraction": 1.0, "points": 200.0}
_NO_PART = {"strict", "official", STOPS, "groups", "runs", "std", "spread", "total_unrounded", "total"}
_STRIP = {"mme": 2000.0}  # the end of a strip; 100 elsewhere


def write_report(out: Path, runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> None:
    """Writes ``out`` (``report.html``) and beside it the same as Markdown and JSON."""
    write_text(out.with_suffix(".html"), html(runs, comparisons))
    write_text(out.with_suffix(".md"), as_markdown(runs, comparisons))
    write_json(out.with_suffix(".json"), as_json(runs, comparisons))


def html(runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> str:
    """The page. Everything from the runs is escaped by the template engine."""
    sections = [_section(name, runs, comparisons) for name in _shared(runs)]
    return page.render(
        "llavakit.eval",
        "report",
        title=" and ".join(run.name for run in runs),
        names=[run.name for run in runs],
        strips=_strips(runs),
        radar=_radar(runs),
        published=published(),
        own=[own_figures(_results(run)) for run in runs],
        comparisons=[_told(one) for one in comparisons],
        sections=sections,
        kinds=KINDS,
        questions=sum(section["count"] for section in sections),
    )


def as_markdown(runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> str:
    """The tables of the page."""
    parts = [part for run in runs for part in (f"## {run.name}", markdown_table(_results(run)))]
    own = [own_figures(_results(run)) for run in runs]
    columns = [column for column in published().columns if any(column.key in figures for figures in own)]
    if columns:
        head = ["model", *(column.title for column in columns)]
        rows = [[run.name, *(_figure(f[c.key].score if c.key in f else None) for c in columns)]
                for run, f in zip(runs, own, strict=True)]  # fmt: skip
        for model in published().models:
            rows.append([model.name, *(_seen(c.key, model) for c in columns)])
        parts += [
            "## Beside the published",
            markdown(head, rows),
            f"{published().about}. \\* Its training images were trained on.",
        ]
    if comparisons:
        head, rows = comparison_rows(comparisons, [run.name for run in runs])
        parts += ["## Compared", markdown(head, rows)]
    return "\n\n".join(parts) + "\n"


def as_json(runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> dict[str, Any]:
    told: dict[str, Any] = {
        "runs": [
            {
                "model": run.name,
                "results": {name: held.result.plain() for name, held in run.benchmarks.items()},
                "published_columns": {key: own.score for key, own in own_figures(_results(run)).items()},
            }
            for run in runs
        ]
    }
    return told | ({"comparison": [one.plain() for one in comparisons]} if comparisons else {})


def _results(run: Run) -> list[Result]:
    return [held.result for held in run.benchmarks.values() if held.judged]


def _shared(runs: Sequence[Run]) -> list[str]:
    return [name for name in runs[0].benchmarks if all(name in run.benchmarks for run in runs)]


def _section(name: str, runs: Sequence[Run], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    held = [run.benchmarks[name] for run in runs]
    results = [one.result for one in held]
    full = _FULL[results[0].unit]
    parts = [
        (
            metric.replace("_", " "),
            [(r.metrics.get(metric, 0.0), _bar(r.metrics.get(metric, 0.0) / full)) for r in results],
        )
        for metric in results[0].metrics
        if metric not in _NO_PART and not metric.endswith("(count)")
    ]
    digits = 4 if results[0].unit == "fraction" else 2
    return {
        "name": name,
        "unit": results[0].unit,
        "digits": digits,
        "protocol": results[0].protocol,
        "count": results[0].count,
        "judged": all(one.judged for one in held),
        "results": results,
        "doubts": [doubts(result, digits) for result in results],
        "parts": parts,
        "compared": next((_told(one) for one in comparisons if one.folder == name), None),
        "shown": shown(held),
    }


def _strips(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row a published column that a run fills: where its score, and those of others, lie between 0 and the end."""
    table = published()
    own = [own_figures(_results(run)) for run in runs]
    rows = []
    for column in table.columns:
        if not any(column.key in figures for figures in own):
            continue
        end = _STRIP.get(column.key, 100.0)
        mine = [figures.get(column.key) for figures in own]
        others = [(m.name, m.scores[column.key], _width(m.scores[column.key] / end)) for m in table.models
                  if column.key in m.scores]  # fmt: skip
        rows.append(
            {
                "title": column.title,
                "split": column.split,
                "others": others,
                "own": [
                    None if one is None else {
                        "score": one.score,
                        "at": _width(one.score / end),
                        "ends": one.interval and [_width(x / end) for x in one.interval],
                    }
                    for one in mine
                ],
            }
        )  # fmt: skip
    return rows


def _radar(runs: Sequence[Run]) -> Any:
    table = published()
    own = {run.name: own_figures(_results(run)) for run in runs}
    titles = {c.key: c.title for c in table.columns if any(c.key in figures for figures in own.values())}
    scores: dict[str, dict[str, float]] = {
        model.name: {key: model.scores[key] for key in titles if key in model.scores}
        for model in table.models
        if model.name in table.drawn
    }
    scores |= {name: {key: one.score for key, one in figures.items()} for name, figures in own.items()}
    return radar(titles, scores)


def _told(one: Comparison) -> dict[str, Any]:
    return one.plain() | {"digits": 4 if one.unit == "fraction" else 2}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _seen(key: str, model: Any) -> str:
    return _figure(model.scores.get(key)) + ("\\*" if key in model.seen else "")


def _bar(share: float) -> float | None:
    """None where a bar would tell nothing: a sum of parts."""
    return None if share > 1.0 else _width(share)


def _width(share: float) -> float:
    return round(100 * max(0.0, min(1.0, share)), 2)
