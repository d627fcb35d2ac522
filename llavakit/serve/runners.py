"""Other engines on a native checkpoint, each as what answers questions greedily in float32, in order."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.log import progress
from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.image.open import open_image
from llavakit.model.quiet import quiet
from llavakit.serve.agree import TIE

ROUGH = 2e-2

Answer = Callable[[Sequence[Conversation]], list[str]]


@dataclass(frozen=True)
class Runner:
    """An engine that runs. ``note``: what of the checkpoint it did not see; ``tie``: as :data:`TIE`."""

    answer: Answer
    version: str
    note: str = ""
    tie: float = TIE


Start = Callable[[Path, Engine, Decoding], AbstractContextManager[Runner]]
"""Starts an engine on a checkpoint, for as long as the context lasts. Raises :class:`BadRequest` where it cannot be."""


@contextmanager
def transformers(path: Path, engine: Engine, how: Decoding) -> Iterator[Runner]:
    """As its documentation has it: processor, chat template, generate."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if engine.model.form != "llava":
        raise BadRequest("this form (model_type: llavakit) is llavakit's own")
    with quiet():
        model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
        model.to(engine.model.device).eval()
        processor = AutoProcessor.from_pretrained(path)

    def one(conversation: Conversation) -> str:
        parts = [{"type": "image"} for _ in conversation.images]
        words = {"type": "text", "text": _words(conversation)}
        text = processor.apply_chat_template([{"role": "user", "content": [*parts, words]}], add_generation_prompt=True)
        pictures = [open_image(ref.source) for ref in conversation.images]
        more = not text.startswith(processor.tokenizer.bos_token or "")  # or BOS would stand there twice
        inputs = processor(images=pictures or None, text=text, add_special_tokens=more, return_tensors="pt")
        with torch.inference_mode(), quiet():
            out = model.generate(**inputs.to(model.device), max_new_tokens=how.max_new_tokens, do_sample=False)
        return str(processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    def answer(asked: Sequence[Conversation]) -> list[str]:
        return [one(conversation) for conversation in progress(asked, total=len(asked), desc="transformers")]

    yield Runner(answer, version("transformers"))


@contextmanager
def openvino(path: Path, engine: Engine, how: Decoding) -> Iterator[Runner]:
    from llavakit.serve.openvino import load

    other = load(path)
    yield Runner(lambda asked: list(other.answer(asked, how)), version("openvino"))


@contextmanager
def vllm(path: Path, engine: Engine, how: Decoding, python: str | None = None) -> Iterator[Runner]:
    """Its own server, asked through OpenAI's API."""
    from llavakit.serve.vllm import Launch, started, wait_for_health

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "vllm.log"
        launch = Launch(str(path), "127.0.0.1", 0, "model", None, 8, images=1, dtype="float32", output=output)
        with started(launch, python) as (process, launch):
            try:
                wait_for_health(process, launch.host, launch.port)
            except WorkFailed as error:
                lines = [line for line in output.read_text(errors="replace").splitlines() if "Error" in line]
                raise WorkFailed(f"{error}: {lines[-1].strip() if lines else 'nothing'}") from None
            url = f"http://127.0.0.1:{launch.port}/v1"
            yield Runner(endpoint(url, "model", how), _version_in(python or sys.executable, "vllm"))


def endpoint(url: str, name: str, how: Decoding) -> Answer:
    """What answers behind an OpenAI-compatible API."""
    from llavakit.endpoint.client import Client, Endpoint
    from llavakit.endpoint.journal import Journal
    from llavakit.endpoint.meter import Budget, Meter
    from llavakit.eval.remote import remote

    def answer(asked: Sequence[Conversation]) -> list[str]:
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
            meter = Meter(Budget(), None, journal.usages())
            client = Client(Endpoint(url=url), journal, meter, blank=True)
            body = {"model": name, "temperature": 0, "max_tokens": how.max_new_tokens}
            return list(progress(remote(client, body)(asked), total=len(asked), desc=name))

    return answer


@contextmanager
def llama_cpp(path: Path, engine: Engine, how: Decoding) -> Iterator[Runner]:
    """GGUF files written anew into a temporary folder."""
    from llavakit.convert.checkpoint import native
    from llavakit.convert.gguf import fault, write_gguf
    from llavakit.serve.llama_cpp import LlamaCpp, package

    package()
    checkpoint = native(path)
    if (why := fault(checkpoint)) is not None:
        raise BadRequest(why)
    with tempfile.TemporaryDirectory() as folder:
        write_gguf(checkpoint, Path(folder), "f32")
        theirs = LlamaCpp(Path(folder), engine)
        note = "" if theirs.sees else "pictures as llavakit's features, since it misreads towers with CLS (issue 25814)"
        # Of what it sees itself: 32-bit files, and features that are 1e-3 of the largest off.
        tie = ROUGH if theirs.sees else TIE
        try:
            yield Runner(lambda asked: [theirs.answer(c, how.max_new_tokens) for c in asked], theirs.version, note, tie)
        finally:
            theirs.close()


def _words(conversation: Conversation) -> str:
    return conversation.turns[0].text.replace(IMAGE, "").strip()


def _version_in(python: str, package: str) -> str:
    code = f"from importlib.metadata import version, packages_distributions as p; print(version(p()['{package}'][0]))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
