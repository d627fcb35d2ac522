"""Pages that need nothing beside them: templates filled by Jinja, everything from data escaped, the style inside."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any


def render(package: str, name: str, **values: Any) -> str:
    """The page ``pages/NAME.html`` of a package, with the style and the pieces that all pages share."""
    import jinja2  # here, because checks and commands that make no page import this too

    def source(file: str) -> str:
        own = resources.files(package).joinpath("pages", file)
        there = own if own.is_file() else resources.files("llavakit.base").joinpath("pages", file)
        return there.read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    environment.globals |= {"bars": bars}
    return environment.get_template(f"{name}.html").render(style=source("page.css"), **values)


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


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"
