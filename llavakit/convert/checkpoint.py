"""A checkpoint on its way from one format to another: described as a native one, its tensors a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json
from llavakit.chat.template import get_template
from llavakit.convert.tensors import TensorFiles
from llavakit.model.checkpoint import load_description, native_state, resolve
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.tensors import plain_name, tensor_files

Stream = Iterator[tuple[str, torch.Tensor]]

EMBEDDINGS = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
# Buffers that older versions saved; every reader computes them.
COMPUTED = ("position_ids", "rotary_emb.inv_freq")


@dataclass(frozen=True)
class Checkpoint:
    """``model`` is on the meta device: configuration and shapes, no weights. ``stream()`` gives every tensor once,
    under its native name. ``vocabulary``: rows of the embeddings without those of ``<image>`` and pad.

    ``card`` becomes ``llavakit.json``; ``pieces`` is the SentencePiece file of the tokenizer, where it has one.
    """

    model: Llava
    codec: Codec
    stream: Callable[[], Stream]
    vocabulary: int
    card: dict[str, Any] = field(default_factory=dict)
    pieces: Path | None = None

    @property
    def tied(self) -> bool:
        return bool(getattr(self.model.language_model.config, "tie_word_embeddings", False))

    def tensors(self) -> Stream:
        """The stream, checked: every tensor of the model once, in its right shape.

        Raises :class:`BadRequest` naming what is missing, too much, or of another shape.
        """
        expected = {plain_name(name): (name, tensor.shape) for name, tensor in native_state(self.model).items()}
        if self.tied:
            expected.pop(HEAD, None)
        for given, tensor in self.stream():
            if given.endswith(COMPUTED) or (self.tied and given == HEAD):
                continue
            found = expected.pop(plain_name(given), None)
            if found is None:
                raise BadRequest(f"the checkpoint holds {given!r} twice, or this model has no place for it")
            name, shape = found
            if tensor.shape != shape:
                raise BadRequest(f"{given!r} is {tuple(tensor.shape)}, the configuration says {tuple(shape)}")
            yield name, tensor
        if expected:
            raise BadRequest(f"the checkpoint lacks {len(expected)} tensors, e.g. {min(expected)}")

    def count(self) -> int:
        """How many tensors :meth:`tensors` gives."""
        return len(native_state(self.model)) - self.tied


def resized(table: torch.Tensor, keep: int, size: int) -> torch.Tensor:
    """A vocabulary table ``[rows, H]`` as ``[size, H]``: its first ``keep`` rows, then their mean.

    A table that has fewer rows than ``keep`` is completed in the same way.
    """
    kept = table[:keep]
    if len(kept) == size:
        return kept
    # By parts, in float64: neither a second table nor the rounding of a long half-precision sum.
    total = sum((part.double().sum(0) for part in kept.split(4096)), torch.zeros(table.shape[1], dtype=torch.float64))
    mean = (total / len(kept)).to(table.dtype)
    return torch.cat([kept, mean.expand(size - len(kept), -1)])


def native(path: str | Path, template: str | None = None) -> Checkpoint:
    """A native directory, ours or anybody's. ``template``: name of a chat template, in place of its own.

    Raises :class:`BadRequest` naming the file that it lacks.
    """
    from llavakit.chat.conversation import IMAGE
    from llavakit.model.build import PAD, vocabulary_size

    path = resolve(path)
    config = read_json(path / "config.json")
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    model, codec = load_description(
        path, getattr(torch, str(name)), "meta", get_template(template) if template else None
    )
    card = read_json(path / "llavakit.json") if (path / "llavakit.json").is_file() else {}
    size = vocabulary_size(codec.tokenizer)
    if model.language_model.config.vocab_size != size:  # transformers' own conversions round it up
        model.language_model.resize_token_embeddings(size, mean_resizing=False)
    tokens = codec.tokenizer.convert_ids_to_tokens(range(size))
    while tokens[-1] in (IMAGE, PAD):
        tokens.pop()
    if IMAGE in tokens:
        raise BadRequest(f"{path}: {IMAGE} stands among the tokenizer's other tokens, not behind them")
    files = TensorFiles(tensor_files(path))
    pieces = path / "tokenizer.model"
    own = pieces if pieces.is_file() else None
    return Checkpoint(model, codec, lambda: _exact(files, size), len(tokens), card, own)


def _exact(files: Iterable[tuple[str, torch.Tensor]], size: int) -> Stream:
    for name, tensor in files:
        yield name, tensor[:size] if plain_name(name) in (EMBEDDINGS, HEAD) else tensor
