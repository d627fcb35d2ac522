"""Strict, frozen configuration values: load, save, evolve (re-validated), hash.

Every configuration in llavakit is a :class:`Config`. A value can not change after it was validated; a variant is
made by :meth:`Config.evolve`, which validates again (pydantic's own ``model_copy(update=...)`` does not).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json, to_jsonable_python

from llavakit.base.errors import BadRequest, nearest
from llavakit.base.files import read_json, write_json


class Config(BaseModel):
    """Base of all configuration values: unknown keys and wrong types are refused with their exact path."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        ser_json_inf_nan="constants",  # the default writes infinity as null, and an optional field reads that as None
    )

    @classmethod
    def parse(cls, value: Mapping[str, Any], where: str = "") -> Self:
        """Validates plain data. Raises :class:`BadRequest` that names every wrong path and the nearest right key."""
        try:
            # Through JSON: strict mode still takes a list for a tuple there, as files need.
            return cls.model_validate_json(to_json(value, serialize_as_any=True))
        except ValidationError as error:
            raise BadRequest(_explain(error, cls, where or cls.__name__)) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a YAML or JSON file of this schema."""
        return cls.parse(load_mapping(path), where=str(path))

    def plain(self) -> dict[str, Any]:
        """The value as JSON data."""
        # As any: a field that holds a subclass of its declared type would otherwise lose the subclass's own fields.
        return self.model_dump(mode="json", serialize_as_any=True)

    def save(self, path: str | Path) -> None:
        """Writes indented JSON, atomically."""
        write_json(path, self.plain())

    def evolve(self, changes: Mapping[str, Any] | None = None, **more: Any) -> Self:
        """A validated variant. Keys may be dotted paths into nested values: ``{"stages.tune.lr": 1e-5}``, and with a
        number into a list: ``{"sources.0.path": "a"}``."""
        data = self.plain()
        for path, value in {**(changes or {}), **more}.items():
            _set(data, path, to_jsonable_python(value, serialize_as_any=True), type(self).__name__)
        return type(self).parse(data)

    def hash(self) -> str:
        """16 hexadecimal digits that depend on the values alone."""
        # Not sorted: fields have the order of the class, and the order of a dict (of stages, say) is part of its value.
        text = json.dumps(self.plain(), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping at the top of a YAML or JSON file. Raises :class:`BadRequest` when there is none."""
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"no configuration file at {path}")
    try:
        # JSON by its own reader: YAML refuses its tabs.
        value = read_json(path) if path.suffix == ".json" else _yaml(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{path} must hold a mapping at its top, not {type(value).__name__}")
    return value


def parse_override(text: str) -> tuple[str, Any]:
    """``"stages.tune.lr=1e-5"`` -> ``("stages.tune.lr", 1e-5)``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadRequest(f"override {text!r} is not of the form key.path=value")
    try:
        return key, _yaml(value)
    except yaml.YAMLError as error:
        raise BadRequest(f"override {text!r}: the value is not valid YAML: {_one_line(error)}") from None


class _Loader(yaml.SafeLoader):
    """SafeLoader reads ``2e-5`` as a string (YAML 1.1 wants ``2.0e-5``), dates as dates, and of two equal keys the
    last; here the first is the number everybody means, a date is a string, and equal keys are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                message = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _set(data: Any, path: str, value: Any, where: str) -> None:
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if not _holds(data, key):
            keys = list(data) if isinstance(data, dict) else []
            raise BadRequest(f"{where} has no {'.'.join(parents[: depth + 1])!r}{nearest(key, keys)}")
        data = data[int(key) if isinstance(data, list) else key]
    if isinstance(data, dict):
        data[last] = value
    elif isinstance(data, list):
        if not _holds(data, last):
            raise BadRequest(f"{where} has no {path!r}: the list has {len(data)} items, counted from 0")
        data[int(last)] = value
    else:
        raise BadRequest(f"{where}: {'.'.join(parents)!r} is a plain value; {last!r} cannot be set inside it")


def _holds(data: Any, key: str) -> bool:
    return key in data if isinstance(data, dict) else isinstance(data, list) and key.isdigit() and int(key) < len(data)


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
    """Field names of the Config that ``loc`` leads to, through fields, keys of dicts and items of lists."""
    kinds = [cls]
    inside_container = False
    for part in loc:
        if inside_container:
            inside_container = False  # a key or an index: it leads to the Config that the container holds
            continue
        annotations = [kind.model_fields[str(part)].annotation for kind in kinds if str(part) in kind.model_fields]
        kinds = [found for annotation in annotations for found in _configs_in(annotation)]
        inside_container = any(_is_container(annotation) for annotation in annotations)
    return [name for kind in kinds for name in kind.model_fields]


def _is_container(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_is_container(part) for part in get_args(annotation))
    return isinstance(origin, type) and issubclass(origin, Collection)


def _configs_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _configs_in(part)]
