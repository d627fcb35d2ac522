"""Recipes that ship, one a file: each a function ``recipe()`` that returns a :class:`~llavakit.train.stage.Recipe`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llavakit.base.config import parse_override
from llavakit.base.registry import Registry

if TYPE_CHECKING:
    from llavakit.train.stage import Recipe

RECIPES = Registry("llavakit.recipes", "recipe", "recipe")


def resolve(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML or JSON file of the same schema, with ``key.path=value`` changes applied.

    Raises :class:`~llavakit.base.errors.BadRequest` that names what is wrong and the nearest right name.
    """
    from llavakit.train.stage import Recipe

    path = Path(name)
    is_file = path.suffix in (".yaml", ".yml", ".json")
    chosen: Recipe = Recipe.load(path) if is_file else RECIPES[name]()
    return chosen.evolve(dict(parse_override(text) for text in overrides))
