"""Strict, frozen configuration values: load, save, evolve (re-validated), hash.

Every configuration in llavakit is a :class:`Config`. A value can not change after it was validated; a variant is
made by :meth:`Config.evolve`, which validates again (pydantic's own ``model_copy(update=...)`` does not).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from llavakit.base.errors import BadRequest
from llavakit.base.files import write_text


class Config(BaseModel):
    """Base of all configuration values: unknown keys and wrong types are refused with their exact path."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    @classmethod
    def parse(cls, value: Mapping[str, Any], where: str = "") -> Self:
        """Validates plain data. Raises :class:`BadRequest` that names every wrong path and the nearest right key."""
        try:
            # Through JSON: strict mode still takes a list for a tuple there, as files need.
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            raise BadRequest(_explain(error, cls, where or cls.__name__)) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a YAML or JSON file of this schema."""
        return cls.parse(load_mapping(path), where=str(path))

    def plain(self) -> dict[str, Any]:
        """The value as JSON data."""
        return self.model_dump(mode="json")

    def save(self, path: str | Path) -> None:
        """Writes indented JSON, atomically."""
        write_text(path, json.dumps(self.plain(), indent=2, ensure_ascii=False) + "\n")

    def evolve(self, changes: Mapping[str, Any] | None = None, **more: Any) -> Self:
        """A validated variant. Keys may be dotted paths into nested values (``{"stages.tune.lr": 1e-5}``)."""
        data = self.plain()
        for path, value in {**(changes or {}), **more}.items():
            _set(data, path, value.plain() if isinstance(value, Config) else value, type(self).__name__)
        return type(self).parse(data)

    def hash(self) -> str:
        """16 hexadecimal digits that depend on the values alone."""
        text = json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping at the top of a YAML or JSON file."""
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"no configuration file at {path}")
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise BadRequest(f"{path} is not valid YAML or JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{path} must hold a mapping at its top, not {type(value).__name__}")
    return value


def parse_override(text: str) -> tuple[str, Any]:
    """``"stages.tune.lr=1e-5"`` -> ``("stages.tune.lr", 1e-5)``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadRequest(f"override {text!r} is not of the form key.path=value")
    try:
        return key, yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise BadRequest(f"override {text!r}: the value is not valid YAML: {error}") from None


def nearest(name: str, names: list[str]) -> str:
    """A ``" (did you mean 'x'?)"`` suffix, or nothing when no name is near."""
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.55)
    return f" (did you mean {match[0]!r}?)" if match else ""


class _Loader(yaml.SafeLoader):
    """SafeLoader reads ``2e-5`` as a string (YAML 1.1 wants ``2.0e-5``); here it is the number everybody means."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _set(data: Any, path: str, value: Any, where: str) -> None:
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if not isinstance(data, dict) or key not in data:
            keys = list(data) if isinstance(data, dict) else []
            raise BadRequest(f"{where} has no {'.'.join(parents[: depth + 1])!r}{nearest(key, keys)}")
        data = data[key]
    if not isinstance(data, dict):
        raise BadRequest(f"{where}: {'.'.join(parents)!r} is a plain value; {last!r} cannot be set inside it")
    data[last] = value


def _explain(error: ValidationError, cls: type[BaseModel], where: str) -> str:
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            fields = _fields_at(cls, item["loc"][:-1])
            lines.append(f"{path}: unknown key{nearest(str(item['loc'][-1]), fields)}")
        elif item["type"] == "missing":
            lines.append(f"{path}: is required")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if item["type"] == "value_error" else f", got {item['input']!r}"
            lines.append(f"{path}: {message}{shown}" if path else f"{message}")
    return f"{where}: " + "; ".join(lines)


def _fields_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the Config that ``loc`` leads to, looking through dicts, lists, and unions."""
    current: list[Any] = [cls]
    for part in loc:
        following: list[Any] = []
        for kind in current:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                field = kind.model_fields.get(str(part))
                following += _configs_in(field.annotation) if field else [kind]
            else:
                following += _configs_in(kind)
        current = following
    return [name for kind in current if isinstance(kind, type) for name in kind.model_fields]


def _configs_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _configs_in(part)]
