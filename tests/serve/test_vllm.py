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


@pytest.fixture()
def wide(backbones: Path, tmp_path: Path) -> Path:
    """A checkpoint whose heads are 32 wide: vLLM's kernels for a CPU know no narrower ones."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from llavakit.chat.template import get_template
    from llavakit.model.build import ModelSpec, build
    from llavakit.model.checkpoint import save
    from llavakit.model.encode import Codec

    plain = AutoTokenizer.from_pretrained(backbones / "language")
    ids = {key: getattr(plain, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(plain), num_hidden_layers=2, max_position_embeddings=512, initializer_range=0.2, **sizes, **ids
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "language")
    plain.save_pretrained(tmp_path / "language")
    spec = ModelSpec(vision=str(backbones / "clip"), language=str(tmp_path / "language"))
    model, tokenizer = build(spec)
    codec = Codec(tokenizer, get_template("vicuna_v1"), model.square, model.vision_tower.tokens, 512)
    save(model, codec, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.skipif("LLAVAKIT_VLLM_PYTHON" not in os.environ, reason="LLAVAKIT_VLLM_PYTHON names no interpreter")
def test_ours_and_vllms_answers_agree(wide: Path) -> None:
    """The same client, the same greedy questions, two engines."""
    from openai import OpenAI

    from tests.serve.conftest import data_url, noise, process, user

    python = os.environ.get("LLAVAKIT_VLLM_PYTHON", "")
    answers = []
    for words in ((), ("--engine", "vllm", "--engine-python", python)):
        with process(wide, "--name", "toy", *words) as (base, _):
            client = OpenAI(base_url=f"{base}/v1", api_key="none", timeout=120)
            for message in (user("Say yes."), *(user("What is it?", data_url(noise(n))) for n in range(4))):
                reply = client.chat.completions.create(model="toy", messages=[message], max_tokens=16, temperature=0)
                # A character that the limit cut in two is shown by one and not by the other.
                answers.append((reply.choices[0].message.content or "").strip().rstrip("\ufffd"))
    assert answers[:5] == answers[5:] and len(set(answers)) > 2
