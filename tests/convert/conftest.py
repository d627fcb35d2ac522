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
    """llava-v1.5 as it is published: ``.bin`` shards, the tower elsewhere."""
    path = tmp_path_factory.mktemp("original") / "weights"
    originals.write_config(path, originals.llava_config(clip))
    originals.write_tokenizer(path, pieces)
    state = originals.language_state(originals.text_config()) | originals.projector_state()
    originals.write_bins(path, state)
    return path
