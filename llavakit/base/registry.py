"""Registries of what lies in a folder: one module, one entry, named by its file."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from llavakit.base.errors import BadRequest, nearest


class Registry:
    """Entries by name: the object ``attribute`` of every module in ``package``, imported when it is first asked for.

    An entry is named as its file is; ``-`` may be written for ``_``. Modules that begin with ``_`` are helpers.
    ``kind`` says in messages what the entries are.
    """

    def __init__(self, package: str, attribute: str, kind: str) -> None:
        self.package = package
        self.attribute = attribute
        self.kind = kind
        self._added: dict[str, Any] = {}

    def names(self) -> list[str]:
        """All names, sorted; no entry is imported for it."""
        return sorted({*self._found(), *self._added})

    def register(self, name: str, entry: Any) -> None:
        """Adds an entry from elsewhere. Raises ValueError when the name is taken."""
        name = name.replace("-", "_")
        if name in self:
            raise ValueError(f"{self.kind} {name!r} exists already")
        self._added[name] = entry

    def __getitem__(self, name: str) -> Any:
        """The entry. Raises :class:`BadRequest` with the nearest name and all names when there is none."""
        known = name.replace("-", "_")
        if known in self._added:
            return self._added[known]
        if known not in self._found():
            names = self.names()
            listed = ", ".join(names) if names else "none"
            raise BadRequest(f"no {self.kind} {name!r}{nearest(known, names)}; there are: {listed}")
        module = importlib.import_module(f"{self.package}.{known}")
        if not hasattr(module, self.attribute):
            raise AttributeError(f"{module.__name__} must define {self.attribute}, as every {self.kind} does")
        return getattr(module, self.attribute)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.replace("-", "_") in self.names()

    def _found(self) -> list[str]:
        path = importlib.import_module(self.package).__path__
        return [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]
