"""A registry knows names without importing entries, and helps when a name is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest
from llavakit.base.registry import Registry


@pytest.fixture
def animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    folder = tmp_path / "zoo_of_tests"
    folder.mkdir()
    for name in ("__init__", "_helper", "no_entry"):
        (folder / f"{name}.py").touch()
    for name in ("red_panda", "zebra"):
        (folder / f"{name}.py").write_text(f"ANIMAL = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("zoo_of_tests", "ANIMAL", "animal")
    for module in [name for name in sys.modules if name.startswith("zoo_of_tests")]:
        del sys.modules[module]


def test_names_import_nothing(animals: Registry) -> None:
    assert animals.names() == ["no_entry", "red_panda", "zebra"]
    assert "zoo_of_tests.zebra" not in sys.modules
    assert animals["zebra"] == "zebra"
    assert "zoo_of_tests.red_panda" not in sys.modules


def test_a_dash_is_an_underscore(animals: Registry) -> None:
    assert animals["red-panda"] == animals["red_panda"] == "red_panda"
    assert "red-panda" in animals and "panda" not in animals


def test_a_miss_suggests(animals: Registry) -> None:
    with pytest.raises(
        BadRequest, match=r"no animal 'zebar' \(did you mean 'zebra'\?\); there are: no_entry, red_panda"
    ):
        animals["zebar"]
    with pytest.raises(BadRequest, match="no animal '_helper'"):
        animals["_helper"]
    with pytest.raises(AttributeError, match=r"zoo_of_tests\.no_entry must define ANIMAL"):
        animals["no_entry"]


def test_additions(animals: Registry) -> None:
    animals.register("sea-lion", 5)
    assert animals["sea_lion"] == 5 and animals.names() == ["no_entry", "red_panda", "sea_lion", "zebra"]
    for taken in ("zebra", "red-panda", "sea_lion"):
        with pytest.raises(ValueError, match="exists already"):
            animals.register(taken, 6)
