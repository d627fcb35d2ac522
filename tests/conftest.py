"""Small real things that many tests need: backbones of the true formats, a model, its checkpoint, shared data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import toys

# Nothing here may reach a hub; set before transformers is imported anywhere.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs, captions and published answers, where they are at hand."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the shared real data is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``clip`` and ``language``: tiny random models saved as transformers saves them."""
    return toys.write_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture()
def toy(backbones: Path):  # type: ignore[no-untyped-def]
    """A fresh (model, codec) built from the tiny backbones, template vicuna_v1, context 512."""
    return toys.build_toy(backbones)


@pytest.fixture(scope="session")
def checkpoint(backbones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native checkpoint directory of the toy model."""
    from llavakit.model.checkpoint import save

    path = tmp_path_factory.mktemp("checkpoint") / "model"
    save(*toys.build_toy(backbones), path)
    return path
