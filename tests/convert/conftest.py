"""What all conversions start from: a CLIP, a SentencePiece model, a Vicuna, an original LLaVA of the usual kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert import originals


@pytest.fixture(scope="session")
def pieces() -> bytes:
    return originals.pieces_model()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return originals.clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="session")
def vicuna(tmp_path_factory: pytest.TempPathFactory, pieces: bytes) -> Path:
    return originals.vicuna(tmp_path_factory.mktemp("vicuna") / "vicuna", pieces)


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory, pieces: bytes, clip: Path) -> Path:
    return originals.llava(tmp_path_factory.mktemp("original") / "weights", clip, pieces)
