"""Every engine at hand asked the same questions, one engine after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.log import log
from llavakit.chat.conversation import Conversation
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint
from llavakit.serve import runners
from llavakit.serve.agree import Answered, Row, answered, compared, questions


def certify(
    path: Path,
    images: str | Path,
    count: int,
    max_new_tokens: int,
    names: Sequence[str],
    vllm_python: str | None = None,
) -> tuple[list[Row], int, Decoding]:
    """A row for each of the named engines, the number of questions, and how they were answered.

    An engine that cannot run here has a row that says why. Raises :class:`BadRequest` for too few pictures.
    """
    asked, how = questions(images, count), Decoding(max_new_tokens=max_new_tokens)
    model, codec = checkpoint.load(path, torch.float32, "cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(model, codec)
    ours = answered(engine, asked, how)
    known: dict[str, runners.Start] = {
        "transformers": runners.transformers,
        "openvino": runners.openvino,
        "vllm": functools.partial(runners.vllm, python=vllm_python),
        "llama.cpp": runners.llama_cpp,
    }
    return [_row(name, known[name], path, engine, asked, ours, how) for name in names], len(asked), how


def _row(
    name: str,
    runner: runners.Start,
    path: Path,
    engine: Engine,
    asked: Sequence[Conversation],
    ours: Sequence[Answered],
    how: Decoding,
) -> Row:
    try:
        with runner(path, engine, how) as other:
            row = compared(name, other.version, asked, ours, other.answer(asked), other.note, other.tie)
    except BadRequest as error:  # it is not installed, or has no form for this model
        return Row(name, "", f"not run: {error}")
    except WorkFailed as error:  # the others' answers are not lost for it
        return Row(name, "", f"failed: {error}", broke=True)
    log.info(f"{name}: {row.said}")
    return row
