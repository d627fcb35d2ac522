"""Pages that need nothing beside them: templates of ``data/pages`` filled by Jinja, everything from data escaped."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2


def render(name: str, **values: Any) -> str:
    """The page ``data/pages/NAME.html`` with its style inside."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    environment.globals |= {"bars": bars}
    return environment.get_template(f"{name}.html").render(style=_source("page.css"), **values)


def bars(values: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """(lower bound, count) as bars in percent of the width and of the highest."""
    most = max((count for _, count in values), default=1)
    return [
        {
            "left": 100 * n / len(values),
            "width": 100 / len(values),
            "height": 100 * count / most,
            "from": low,
            "count": count,
        }
        for n, (low, count) in enumerate(values)
    ]


def _source(name: str) -> str:
    return resources.files("llavakit.data").joinpath("pages", name).read_text(encoding="utf-8")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"
