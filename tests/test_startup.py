"""Help is instant and ``import llavakit`` is light. Measured in processor time: a busy machine does not stretch it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llavakit import cli

SECONDS = 0.5


def processor_seconds(argv: list[str]) -> float:
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "llavakit", *argv], capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0 and done.stdout.startswith("usage: llavakit"), done.stderr
    return after.children_user - before.children_user + after.children_system - before.children_system


@pytest.mark.parametrize("verb", [None, *cli.verbs()])
def test_help_is_instant(verb: str | None) -> None:
    argv = [verb.replace("_", "-"), "--help"] if verb else ["--help"]
    best = min(processor_seconds(argv) for _ in range(3))
    assert best < SECONDS, f"llavakit {' '.join(argv)} took {best:.2f} s"


def test_import_is_light() -> None:
    code = (
        "import sys, llavakit, llavakit.base.log, llavakit.base.dist\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'PIL', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert llavakit.Conversation.__module__ == 'llavakit.chat.conversation'\n"
        "assert 'load' in dir(llavakit) and not hasattr(llavakit, 'nonsense')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("loaded", [False, True])
def test_large_pages_are_for_decoding_alone(loaded: bool, checkpoint: Path) -> None:
    """To import the trainer, or the engine that it validates with, leaves memory as it is; to load for decoding not."""
    code = "import os, llavakit.train.run, llavakit.engine.load as engine\n"
    code += f"engine.load({str(checkpoint)!r})\n" * loaded + "print('THP_MEM_ALLOC_ENABLE' in os.environ)"
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert said.stdout.strip() == str(loaded)
