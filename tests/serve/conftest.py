"""Servers to talk to: a process as a person starts it, and one in a thread whose answers never end by themselves."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("openai")

import uvicorn
from openai import OpenAI

from llavakit.engine.engine import Engine
from llavakit.engine.load import load
from llavakit.engine.service import Service
from llavakit.serve.api import ServeConfig, application
from llavakit.serve.run import bind, url

Running = Callable[..., Any]


def data_url(image: Image.Image, format: str = "PNG") -> str:
    out = io.BytesIO()
    image.save(out, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    import numpy as np

    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(text: str, *images: str) -> dict[str, Any]:
    """A question in OpenAI's form, its pictures first."""
    parts = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


@contextmanager
def process(*words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``llavakit serve WORDS`` at a free port: its address, and the process, which is ended at last."""
    command = [sys.executable, "-m", "llavakit", "serve", *map(str, words), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        lines = []
        for line in server.stderr:
            lines.append(line)
            if found := re.search(r" at (http://\S+)", line):
                # Somebody must go on reading, or the server's messages fill the pipe.
                threading.Thread(target=server.stderr.read, daemon=True).start()
                yield found[1], server
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        if server.poll() is None:
            server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def address(checkpoint: Path) -> Iterator[str]:
    """A server as a person starts it, for the whole of the tests."""
    with process(checkpoint, "--name", "toy", "--batch-size", 4) as (found, _):
        yield found


@pytest.fixture(scope="session")
def client(address: str) -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def endless(checkpoint: Path) -> Engine:
    """The toy, made to write until its context of 4096 tokens is full: seconds."""
    import torch

    engine = load(checkpoint, device="cpu", batch_size=2).engine
    head = engine.model.language_model.get_output_embeddings().weight
    tokenizer = engine.codec.tokenizer
    assert tokenizer.bos_token_id < tokenizer.eos_token_id
    with torch.no_grad():
        # Of two equal logits the first is taken, which is never the end.
        head[tokenizer.eos_token_id] = head[tokenizer.bos_token_id]
    return Engine(engine.model, replace(engine.codec, max_length=4096), batch_size=2)


@pytest.fixture()
def running(endless: Engine) -> Iterator[Running]:
    """``running(queue=1, ...)``: the address and service of a server in a thread, with that configuration."""
    ends = []

    def start(engine: Engine = endless, **changes: Any) -> tuple[str, Service]:
        listener = bind("127.0.0.1", 0)
        service = Service(engine)
        config = ServeConfig(name="toy", **changes)
        server = uvicorn.Server(uvicorn.Config(application(service, config), log_level="warning", http="h11"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        ends.append((server, thread))
        return url(listener), service

    yield start
    for server, thread in ends:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Waits for a condition; returns how long it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not happen"
        time.sleep(0.005)
    return time.monotonic() - start
