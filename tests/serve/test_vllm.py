"""Starting vLLM: the right flags, the wait for health, and one clear line where it cannot be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llavakit.base.errors import WorkFailed
from llavakit.base.files import read_json
from llavakit.serve.vllm import Launch, command, tensor_parallel, wait_for_health

# In vLLM's place: what it was started with, and its /health after a while.
STANDS_IN = """
import http.server, json, os, sys, time
words = sys.argv[1:]
json.dump({"words": words, "key": os.environ.get("VLLM_API_KEY")}, open("started.json", "w"))
if "--fail" in os.environ.get("STAND_IN", ""):
    sys.exit(3)
time.sleep(0.5)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
port = int(words[words.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def launch(model: Path, port: int = 8000) -> Launch:
    return Launch(str(model), "127.0.0.1", port, "toy", "sesame", 4)


def test_flags_follow_the_machine(checkpoint: Path) -> None:
    config = read_json(checkpoint / "config.json")
    cpu = command(launch(checkpoint), "python", config, gpus=0)
    assert cpu[cpu.index("--max-model-len") + 1] == "512" and cpu[cpu.index("--served-model-name") + 1] == "toy"
    assert cpu[cpu.index("--dtype") + 1] == "float32" and "--enforce-eager" in cpu
    assert json.loads(cpu[cpu.index("--limit-mm-per-prompt") + 1]) == {"image": 16}
    assert "sesame" not in cpu, "a command line can be read by everybody"
    four = command(launch(checkpoint), "python", config, gpus=4)
    assert four[four.index("--tensor-parallel-size") + 1] == "2", "the toy's tower has two heads"
    assert "--dtype" not in four


@pytest.mark.parametrize(("heads", "kv", "width", "gpus", "used"), [
    (32, 32, 11008, 8, 8), (40, 40, 13824, 8, 8), (32, 8, 14336, 3, 2), (32, 2, 11008, 4, 4), (12, 12, 3072, 5, 4),
    (12, 12, 3072, 3, 2), (14, 2, 4864, 8, 2),
])  # fmt: skip
def test_as_many_gpus_as_divide_the_model(heads: int, kv: int, width: int, gpus: int, used: int) -> None:
    text = {"num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": width}
    vision = {"num_attention_heads": 16, "intermediate_size": 4096}
    assert tensor_parallel({"text_config": text, "vision_config": vision}, gpus) == used


def test_where_it_is_not_installed_the_one_command_is_said(checkpoint: Path) -> None:
    words = [sys.executable, "-m", "llavakit", "serve", str(checkpoint), "--engine", "vllm"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "python -m venv" in done.stderr and "pip install vllm" in done.stderr
    gone = subprocess.run([*words, "--engine-python", "/no/python"], capture_output=True, text=True)
    assert gone.returncode == 2 and "cannot run /no/python" in gone.stderr


@pytest.mark.parametrize("works", [True, False])
def test_the_whole_way_with_a_stand_in(checkpoint: Path, tmp_path: Path, works: bool) -> None:
    folder = tmp_path / "lib" / "vllm" / "entrypoints" / "openai"
    folder.mkdir(parents=True)
    (folder / "api_server.py").write_text(STANDS_IN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ, "PYTHONPATH": f"{tmp_path / 'lib'}:{Path(__file__).parents[2]}",
        "LLAVAKIT_API_KEY": "sesame", "STAND_IN": "" if works else "--fail",
    }  # fmt: skip
    words = ["serve", checkpoint, "--engine", "vllm", "--port", port, "--name", "toy"]
    started = subprocess.Popen(
        [sys.executable, "-m", "llavakit", *map(str, words)],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert started.stderr is not None
    if not works:
        assert "vLLM ended with code 3 before it answered" in started.stderr.read()
        assert started.wait() == 1
        return
    assert f"toy at http://127.0.0.1:{port} by vLLM" in started.stderr.readline()
    assert read_json(tmp_path / "started.json")["key"] == "sesame"
    started.send_signal(signal.SIGTERM)
    assert started.wait(20) == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_health_of_a_process_that_has_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(WorkFailed, match="code 7"):
        wait_for_health(ended, "127.0.0.1", 1)


@pytest.mark.skipif(
    "LLAVAKIT_VLLM_PYTHON" not in os.environ, reason="LLAVAKIT_VLLM_PYTHON names no environment of vLLM"
)
def test_ours_and_vllms_answers_agree(checkpoint: Path, address: str) -> None:
    """The same client, the same greedy questions, two engines."""
    from openai import OpenAI

    from tests.serve.conftest import data_url, noise, user

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", checkpoint, "--engine", "vllm", "--port", port, "--name", "toy"]
    words += ["--engine-python", os.environ["LLAVAKIT_VLLM_PYTHON"]]
    started = subprocess.Popen([sys.executable, "-m", "llavakit", *map(str, words)], stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    try:
        lines = []
        while "by vLLM" not in (line := started.stderr.readline()):
            lines.append(line)
            assert line, "".join(lines)
        answers = []
        for base in (address, f"http://127.0.0.1:{port}"):
            client = OpenAI(base_url=f"{base}/v1", api_key="none")
            asked = [user("Say yes."), user("What is it?", data_url(noise(0))), user("And now?", data_url(noise(1)))]
            answers.append([
                client.chat.completions.create(model="toy", messages=[m], max_tokens=16, temperature=0).choices[0]
                .message.content for m in asked
            ])  # fmt: skip
        assert [text.strip() for text in answers[0]] == [text.strip() for text in answers[1]]
    finally:
        started.terminate()
        started.wait(60)
