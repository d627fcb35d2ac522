"""One toy checkpoint in the engine and in plain transformers. Unlike the common toy it ends some of its answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import Codec, encode
from llavakit.model.llava import Llava
from tests.engine.reference import Reference, mixed


@pytest.fixture(scope="session")
def terse(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, made to end an answer where it would have written a token that a third of its answers hold."""
    model, codec = checkpoints.load(checkpoint)
    examples = [encode(conversation, codec, prompt=True) for conversation in mixed(30)]
    answers = Engine(model, codec).replies(examples, Decoding(max_new_tokens=9))
    counts = Counter(id for pieces in answers for id in {id for piece in pieces for id in piece.ids})
    frequent = min(counts, key=lambda id: (abs(counts[id] - 10), id))
    with torch.no_grad():
        head = model.language_model.get_output_embeddings().weight
        head[codec.tokenizer.eos_token_id] = 1.05 * head[frequent]
    path = tmp_path_factory.mktemp("terse") / "model"
    checkpoints.save(model, codec, path)
    return path


@pytest.fixture(scope="session")
def parts(terse: Path) -> tuple[Llava, Codec]:
    return checkpoints.load(terse)


@pytest.fixture(scope="module")
def engine(parts: tuple[Llava, Codec]) -> Engine:
    return Engine(*parts)


@pytest.fixture(scope="session")
def reference(terse: Path, parts: tuple[Llava, Codec]) -> Reference:
    return Reference(terse, parts[1].square)
