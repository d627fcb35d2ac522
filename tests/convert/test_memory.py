"""A checkpoint of many shards is converted with about one of them in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.convert import originals

SHARD = 8 * 2**20
LAYERS = 14

MEASURE = """
import json, sys, threading
from pathlib import Path
from llavakit.base.log import log
from llavakit.convert import run, original, to_original, certify
import transformers, transformers.models.llama.modeling_llama, transformers.models.clip.modeling_clip

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

toy, source, target, shard = sys.argv[1:]
run.convert(toy, target + "-toy")  # whatever is imported and allocated once
run.convert(target + "-toy", target + "-toy-back", "original")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = memory("VmRSS")
run.CERTIFY_BELOW = 0
run.convert(source, target, shard_bytes=int(shard))
there = memory("VmHWM") - before
run.convert(target, target + "-back", "original", shard_bytes=int(shard))
print(json.dumps([there, memory("VmHWM") - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the kernel's account of peak memory")
def test_peak_memory_is_about_one_shard(tmp_path: Path, llava: Path, clip: Path, pieces: bytes) -> None:
    source = tmp_path / "large"
    config = originals.llava_config(clip) | originals.text_config(depth=LAYERS, width=512)
    originals.write_config(source, config | {"model_type": "llava_llama"})
    originals.write_tokenizer(source, pieces)
    state = originals.language_state(originals.text_config(depth=LAYERS, width=512))
    state |= originals.projector_state(width=512)
    total = sum(tensor.numel() * 4 for tensor in state.values())
    shards = round(total / SHARD)
    assert shards >= 12, "or the bound below says nothing"
    originals.write_bins(source, state, shards)
    del state
    command = [sys.executable, "-c", MEASURE, str(llava), str(source), str(tmp_path / "native"), str(SHARD)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there, both = json.loads(done.stdout.splitlines()[-1])
    assert len(list((tmp_path / "native").glob("*.safetensors"))) >= 12
    print(f"{there / SHARD:.2f} and {both / SHARD:.2f} shards of {shards}")
    assert both < 3.5 * SHARD, f"{both / SHARD:.1f} shards of {shards} were in memory ({there / SHARD:.1f} there)"
