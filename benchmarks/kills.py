"""Kills a training run with SIGKILL at random moments, resumes it each time, and compares its end with a run that was
never killed, byte by byte.

python benchmarks/kills.py [--kills 20] [--ranks 1] [--seed 0]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

# Only imported here, so that the processes, which are forked, begin at once: nothing may have run on torch's threads.
from llavakit.base.files import read_jsonl, sha256
from llavakit.train.run import train
from llavakit.train.stage import Recipe
from tests import toys
from tests.data.samples import write

FORK = multiprocessing.get_context("fork")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        alone = FORK.Process(target=_prepare, args=(here,))
        alone.start()
        alone.join()
        recipe = Recipe.load(here / "run.json")
        start = time.perf_counter()
        assert _run(recipe, here / "unbroken", args.ranks) == "finished"
        seconds = time.perf_counter() - start
        kills = runs = different = 0
        killed, metrics = here / "killed", here / "killed" / "metrics.jsonl"
        while kills < args.kills or killed.exists():
            wait = moments.uniform(0, seconds) if kills < args.kills else None
            if _run(recipe, killed, args.ranks, wait) == "killed":
                kills += 1
                done = len(read_jsonl(metrics)) if metrics.exists() else 0
                print(f"kill {kills:2}: after {wait:.2f} s, {done} steps in its metrics", flush=True)
                continue
            runs += 1
            different += _weights(killed) != _weights(here / "unbroken")
            assert not list(killed.rglob(".*")), "something is left half-written"
            shutil.rmtree(killed)
        print(f"{kills} kills of {args.ranks} process(es), {seconds:.1f} s unbroken: {runs} runs came to their end")
        print(f"runs whose weights differ in any bit from the unbroken run's: {different}")
        sys.exit(different > 0)


def _weights(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256(path) for path in run.rglob("*.safetensors")}


def _prepare(here: Path) -> None:
    toys.write_backbones(here / "backbones")
    data = {"all": {"path": str(write(here, 12))}}
    common: dict[str, Any] = {"data": data, "batch_size": 4, "row_tokens": 120}
    rates = {"vision_tower": 1e-4, "connector": 3e-3, "language_model": 1e-3}
    stages = {
        "align": {**common, "template": "plain", "train": {"connector": 3e-2}, "epochs": 3},
        "tune": {**common, "template": "vicuna_v1", "train": rates, "epochs": 3},
    }
    Recipe.parse(
        {
            "name": "kills",
            "model": {"vision": str(here / "backbones" / "clip"), "language": str(here / "backbones" / "language")},
            "stages": stages,
            "max_length": 256,
            "precision": "float32",
            "workers": 1,
            "snapshot_every": 2,
        }
    ).save(here / "run.json")


def _run(recipe: Recipe, out: Path, ranks: int, wait: float | None = None) -> str:
    """Runs or resumes ``out`` in ``ranks`` processes; kills them all after ``wait`` seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=_rank, args=(recipe, out, rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    processes[0].join(wait)
    late = processes[0].is_alive()
    if late:
        for process in processes:
            process.kill()
    for process in processes:
        process.join()
    codes = {process.exitcode for process in processes}
    assert late or codes == {0}, f"exit codes {codes}: {out.with_suffix('.log').read_text()[-2000:]}"
    return "finished" if codes == {0} else "killed"


def _rank(recipe: Recipe, out: Path, rank: int, ranks: int, port: int) -> None:
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(out.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY), 2)
    train(recipe, out, resume=(out / "run.json").exists())


if __name__ == "__main__":
    main()
