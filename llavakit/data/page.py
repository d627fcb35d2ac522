"""The pages of ``data/pages``."""

from __future__ import annotations

from typing import Any

from llavakit.base import page


def render(name: str, **values: Any) -> str:
    """The page ``data/pages/NAME.html``."""
    return page.render("llavakit.data", name, **values)
