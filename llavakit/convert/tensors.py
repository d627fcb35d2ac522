"""The tensors of a directory, whatever files they lie in, read one at a time.

Safetensors and ``.bin`` files are mapped into memory, not read; ``.bin`` files with weights-only loading, which runs
no code of theirs.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json

_LISTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin")
Read = Callable[[str], torch.Tensor]


class TensorFiles:
    """Tensors by name, in safetensors or ``.bin`` files. Iterating gives (name, tensor), file by file."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.where: dict[str, Path] = {}
        for file in files:
            names, _ = _open(file)
            self.where |= dict.fromkeys(names, file)

    @classmethod
    def of(cls, directory: Path) -> TensorFiles:
        """A model's weights. Raises :class:`BadRequest` when there are none, or one is not there or damaged."""
        for index in _LISTS:
            if (directory / index).is_file():
                names = sorted(set(read_json(directory / index)["weight_map"].values()))
                break
        else:
            names = [name for name in _WHOLE if (directory / name).is_file()][:1]
            if not names:
                raise BadRequest(f"{directory} holds no weights: neither {', '.join(_WHOLE)} nor an index of shards")
        for name in names:
            if not (directory / name).is_file():
                raise BadRequest(f"{directory} lacks {name}, which its index names")
        return cls([directory / name for name in names])

    @classmethod
    def has(cls, directory: Path) -> bool:
        return any((directory / name).is_file() for name in _LISTS + _WHOLE)

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for file in self.files:
            names, read = _open(file)
            for name in names:
                if self.where[name] == file:  # of a name that stands in two files, the last
                    yield name, read(name)

    def __contains__(self, name: str) -> bool:
        return name in self.where

    def __getitem__(self, name: str) -> torch.Tensor:
        return _open(self.where[name])[1](name)


def read_all(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of one (small) file."""
    names, read = _open(file)
    return {name: read(name) for name in names}


def _open(file: Path) -> tuple[list[str], Read]:
    """Names of a file's tensors, and how to read one of them."""
    if file.suffix == ".safetensors":
        try:
            tensors = safe_open(file, framework="pt")
        except SafetensorError as error:
            raise BadRequest(f"{file} is damaged: {error}") from None
        return list(tensors.keys()), tensors.get_tensor
    state = _load_bin(file)
    return list(state), state.__getitem__


def _load_bin(file: Path) -> Mapping[str, torch.Tensor]:
    try:
        # Files of before torch 1.6 are no archives and cannot be mapped; they are read whole.
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise BadRequest(f"{file} is refused: it is damaged, or holds more than tensors: {first}") from None
    except (RuntimeError, EOFError) as error:
        raise BadRequest(f"{file} is damaged: {str(error).strip().splitlines()[0]}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise BadRequest(f"{file} must hold tensors by name; it holds {type(state).__name__}")
    return state
