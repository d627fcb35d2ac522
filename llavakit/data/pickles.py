"""Pickled annotations read as data: RefCOCO is published as a Python 2 pickle, and a pickle can run any code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from llavakit.base.errors import BadRequest


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        # Lists, dicts, texts and numbers need no class: whatever asks for one is code.
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and annotations need no code")


def read_plain_pickle(path: Path) -> Any:
    """Lists, dicts, texts and numbers of a pickle. Raises :class:`BadRequest` when it is broken or asks for any class
    or function; nothing of it is run."""
    try:
        with open(path, "rb") as file:
            # Latin-1: every byte of a Python 2 text can be read so.
            return _Plain(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises nearly anything
        raise BadRequest(f"{path} is not a pickle of plain data: {error}") from None
