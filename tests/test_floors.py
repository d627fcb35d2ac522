"""The house is built in floors: imports go down or stay in their own folder, and torch waits until it is needed."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "llavakit").rglob("*.py"))
FLOORS = [
    {"base"},
    {"chat", "image", "endpoint"},
    {"model", "world", "teacher", "eval"},
    {"data", "engine", "convert"},
    {"train", "serve", "study"},
    {"recipes"},
    {"demo"},
    {"cli"},
]
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
TORCHLESS = FLOORS[0] | FLOORS[1] | {"world", "teacher", "eval", "cli"}
HEAVY = {"torch", "torchvision", "transformers", "accelerate"}
LONGEST = 300


def folder_of(parts: tuple[str, ...]) -> str | None:
    """``("llavakit", "chat", "render")`` -> ``"chat"``; None for llavakit/__init__ and llavakit/__main__."""
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else None


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a file imports, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def at_import(tree: ast.Module) -> ast.Module:
    """What runs when the module is imported: no function bodies, no ``if TYPE_CHECKING``."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if "TYPE_CHECKING" in ast.unparse(node.test):
                return [self.visit(child) for child in node.orelse]
            return self.generic_visit(node)

    pruned = Prune().visit(ast.parse(ast.unparse(tree)))
    assert isinstance(pruned, ast.Module)
    return pruned


def faults(source: str, parts: tuple[str, ...]) -> list[str]:
    """What a file does against the floors. ``parts`` is its module name, ``("llavakit", "chat", "render")``."""
    tree = ast.parse(source)
    own = folder_of(parts)
    found = []
    for line, name in imports(tree, parts[:-1]):
        other = folder_of(tuple(name.split("."))) if name.startswith("llavakit.") else None
        if own is None or other is None or other == own:
            continue
        # The command line is the roof: it may also import what stands beside it.
        if FLOOR[other] >= FLOOR[own] and own != "cli":
            found.append(f"line {line}: {own} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[other]})")
    if own is None or own in TORCHLESS:
        for _, name in imports(at_import(tree), parts[:-1]):
            if name.split(".")[0] in HEAVY:
                found.append(f"imports {name} when it is imported; import it in the function that needs it")
    return found


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_of(path)[1:]))
def test_file(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    parts = module_of(path)
    assert len(parts) == 2 or parts[1] in FLOOR, f"the folder {parts[1]} stands on no floor"
    assert not faults(source, parts)
    assert source.count("\n") <= LONGEST, f"{source.count(chr(10))} lines: more than one idea?"


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("base.log", "from llavakit.base.files import x", 0),
        ("base.log", "from llavakit.chat.render import x", 1),
        ("chat.render", "from llavakit import image", 1),
        ("chat.render", "from ..image import open", 1),
        ("chat.render", "from .template import x", 0),
        ("eval.tasks.pope", "def f():\n    import llavakit.model.llava", 1),
        ("cli.demo", "import llavakit.recipes.demo, llavakit.train.run", 0),
        ("recipes.demo", "import llavakit.cli", 1),
        ("eval.run", "import torch", 1),
        ("eval.run", "try:\n    from transformers import x\nexcept ImportError: pass", 1),
        ("eval.run", "class A:\n    import torch.nn as nn", 1),
        ("eval.run", "def f():\n    import torch", 0),
        ("eval.run", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", 0),
        ("eval.run", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1\nelse:\n    import torch", 1),
        ("train.run", "import torch", 0),
        ("__init__", "import torch", 1),
        ("__init__", "from llavakit.cli import x", 0),
    ],
)
def test_the_rules_themselves(module: str, source: str, wrong: int) -> None:
    assert len(faults(source, ("llavakit", *module.split(".")))) == wrong


def test_what_is_no_python_is_installed_too() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    data = {
        path
        for package, globs in listed.items()
        for glob in globs
        for path in ROOT.joinpath(*package.split(".")).glob(glob)
    }
    others = {path for path in (ROOT / "llavakit").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others == {path for path in data if path.is_file()}
