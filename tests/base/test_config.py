"""Configuration: refusals name the path and the near key, variants are validated, files keep every value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from llavakit.base.config import Config, load_mapping, parse_override
from llavakit.base.errors import BadRequest


class Source(Config):
    path: str
    weight: float = 1.0


class Phase(Config):
    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    data: dict[str, Source] = Field(default_factory=dict)
    clip: float | None = 1.0


class Run(Config):
    name: str
    phases: dict[str, Phase] = Field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    best: Phase | None = None
    seed: int = 0


RUN = Run(
    name="run",
    phases={"align": Phase(lr=1e-3), "tune": Phase(lr=2e-5, data={"photos": Source(path="p")})},
    sources=(Source(path="a"), Source(path="b", weight=0.5)),
)


def refusal(value: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as caught:
        Run.parse(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "path", "near"),
    [
        ({"name": "x", "sed": 1}, "sed", "seed"),
        ({"name": "x", "best": {"lr": 1.0, "beta": []}}, "best.beta", "betas"),
        ({"name": "x", "phases": {"tune": {"lr": 1.0, "clop": 1}}}, "phases.tune.clop", "clip"),
        # a key of a dict that is also a field's name leads to the dict's value, not to that field
        ({"name": "x", "phases": {"data": {"lr": 1.0, "clop": 1}}}, "phases.data.clop", "clip"),
        ({"name": "x", "phases": {"a": {"lr": 1.0, "data": {"b": {"path": "", "wait": 1}}}}}, "data.b.wait", "weight"),
        ({"name": "x", "sources": [{"path": ""}, {"path": "", "pth": ""}]}, "sources.1.pth", "path"),
    ],
)
def test_unknown_key_has_its_path_and_the_near_one(value: dict[str, Any], path: str, near: str) -> None:
    assert f"{path}: unknown key (did you mean {near!r}?)" in refusal(value)


def test_every_fault_is_named() -> None:
    message = refusal({"phases": {"tune": {"lr": "abc", "betas": [0.9]}}, "seed": 1.5, "sources": [{}]})
    for fault in (
        "name: is required",
        "phases.tune.lr: ",
        "got 'abc'",
        "phases.tune.betas.1",
        "seed: ",
        "sources.0.path",
    ):
        assert fault in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["1e-5", "2e-5", "1E5", "+3.e2", "-2.5e-3", ".5e1", "1.5"])
def test_yaml_numbers_are_numbers(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"lr: {text}\n")
    assert load_mapping(tmp_path / "a.yaml") == {"lr": float(text)}
    key, value = parse_override(f"phases.tune.lr={text}")
    assert (key, value) == ("phases.tune.lr", float(text)) and isinstance(value, float)


def test_overrides() -> None:
    assert parse_override("a=[1, 2]") == ("a", [1, 2])
    assert parse_override("a=b=c") == ("a", "b=c")
    assert parse_override("a=null") == ("a", None)
    assert parse_override("day=2024-01-02") == ("day", "2024-01-02")
    for text in ("lr", "=1", "a=[1"):
        with pytest.raises(BadRequest, match="override"):
            parse_override(text)


def test_a_fraction_is_not_taken_for_an_integer(tmp_path: Path) -> None:
    assert Run(name="x", phases={"a": Phase(lr=1)}).phases["a"].lr == 1.0
    assert "valid integer" in refusal({"name": "x", "seed": 1e3})
    assert "valid integer" in refusal({"name": "x", "seed": True})


def test_evolve() -> None:
    changed = RUN.evolve({"phases.tune.lr": 1e-5, "sources.1.weight": 2.0, "phases.tune.data.photos.path": "q"}, seed=3)
    assert changed.phases["tune"].lr == 1e-5 and changed.phases["tune"].data["photos"].path == "q"
    assert changed.sources[1] == Source(path="b", weight=2.0) and changed.seed == 3
    assert RUN.phases["tune"].lr == 2e-5, "the original is untouched"
    assert RUN.evolve() == RUN
    added = RUN.evolve({"phases.more": Phase(lr=0.5)}).evolve(best=Phase(lr=0.25), sources=(Source(path="c"),))
    assert list(added.phases) == ["align", "tune", "more"]
    assert added.best == Phase(lr=0.25) and added.sources == (Source(path="c"),)
    assert RUN.evolve(phases={"only": Phase(lr=0.5)}).phases == {"only": Phase(lr=0.5)}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("phases.tune.lr", "abc", "phases.tune.lr: "),
        ("phases.tune.lr", -1.0, "greater than 0"),
        ("phases.tune.lrr", 1.0, "phases.tune.lrr: unknown key (did you mean 'lr'?)"),
        ("phases.tun.lr", 1.0, "no 'phases.tun' (did you mean 'tune'?)"),
        ("phase.tune.lr", 1.0, "no 'phase' (did you mean 'phases'?)"),
        ("sources.2.weight", 1.0, "no 'sources.2'"),
        ("sources.2", None, "has 2 items"),
        ("seed.x", 1, "'seed' is a plain value"),
    ],
)
def test_evolve_refuses(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        RUN.evolve({path: value})
    assert message in str(caught.value)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        RUN.seed = 1  # type: ignore[misc]


def test_a_subclass_keeps_its_fields() -> None:
    class Special(Phase):
        extra: int = 7

    assert Run(name="x", best=Special(lr=1.0)).plain()["best"]["extra"] == 7


def test_hash() -> None:
    assert RUN.hash() == Run.parse(RUN.plain()).hash() and len(RUN.hash()) == 16
    assert RUN.hash() != RUN.evolve(seed=1).hash()
    turned = Run(name="run", phases=dict(reversed(RUN.phases.items())), sources=RUN.sources)
    assert turned.hash() != RUN.hash(), "stages in another order are another run"


def test_hash_is_the_same_in_every_process() -> None:
    code = "from tests.base.test_config import RUN; print(RUN.hash())"
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == RUN.hash()


phases = st.builds(
    Phase,
    lr=st.floats(0, 1e9, exclude_min=True),
    data=st.dictionaries(st.text(), st.builds(Source, path=st.text(), weight=st.floats(allow_nan=False))),
    clip=st.none() | st.floats(allow_nan=False),
)


@given(st.builds(Run, name=st.text(), phases=st.dictionaries(st.text(), phases), best=st.none() | phases))
def test_every_value_survives_its_file(tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    folder = tmp_path_factory.getbasetemp()
    run.save(folder / "run.json")
    again = Run.load(folder / "run.json")
    assert again == run and again.hash() == run.hash()


def test_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: run\nphases:\n  align: {lr: 1e-3}\n  tune:\n    lr: 2e-5\n    data: {photos: {path: p}}\n"
        "sources:\n- path: a\n- {path: b, weight: 0.5}\n"
    )
    assert Run.load(path) == RUN


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "name: x\nname: y\n", "'name' stands twice"),
        ("a.yaml", "name: [x\n", "not valid YAML"),
        ("a.yaml", "- name\n", "must hold a mapping at its top, not list"),
        ("a.yaml", "name: x\nsed: 1\n", "a.yaml: sed: unknown key"),
        ("a.json", '{"name":\n\t"x",}', "a.json, line 2"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadRequest) as caught:
        Run.load(tmp_path / name)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BadRequest, match="no configuration file"):
        Run.load(tmp_path / "absent.yaml")
