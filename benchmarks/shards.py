"""How much memory a rank takes to load a checkpoint of which it keeps a share: its peak beside its start, in MiB.

python benchmarks/shards.py [--layers 16] [--width 768]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from llavakit.base import dist
from llavakit.base.log import table
from llavakit.model.checkpoint import open_checkpoint, save
from llavakit.train.shard import mesh, prepare
from llavakit.train.stage import Stage
from tests import tiny, toys

FORK: Any = multiprocessing.get_context("fork")  # nothing may have run on torch's threads before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _forked([(_write, here, args.layers, args.width)])
        whole = sum(file.stat().st_size for file in (here / "model").glob("*.safetensors")) / 2**20
        rows = []
        for ranks in (1, 2, 4):
            results, port = FORK.Queue(), _port()
            _forked([(_load, here / "model", rank, ranks, port, results) for rank in range(ranks)])
            peaks = [results.get() for _ in range(ranks)]
            rows.append([str(ranks), f"{whole:.0f}", f"{whole / ranks:.0f}", f"{max(peaks):.0f}"])
        print(table(rows, ["ranks", "the model", "a share of it", "peak of a rank"]))


def _forked(calls: list[tuple[Any, ...]]) -> None:
    processes = [FORK.Process(target=work, args=arguments) for work, *arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _write(here: Path, layers: int, width: int) -> None:
    toys.write_backbones(here)
    save(*toys.build_toy(here), here / "toy")
    sizes = {"hidden_size": width, "intermediate_size": 8 * width // 3, "num_hidden_layers": layers}
    tiny.save_language("llama", here / "large", **sizes)
    (here / "language").rename(here / "small")
    (here / "large").rename(here / "language")
    save(*toys.build_toy(here), here / "model")


def _load(path: Path, rank: int, ranks: int, port: int, results: Any) -> None:
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    stage = Stage(data={}, template="plain", train={"language_model": 1e-5}, batch_size=1)
    with dist.start():
        _prepared(path.with_name("toy"), stage)  # what is imported and set up on the way is no part of a model
        start, peak = _memory(), [0.0]
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                peak[0] = max(peak[0], _memory())
                time.sleep(0.002)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _prepared(path, stage)
        done.set()
        watcher.join()
        results.put(peak[0] - start)


def _prepared(path: Path, stage: Stage) -> None:
    model, _, give = open_checkpoint(path)
    prepare(model, stage, give=give, over=mesh("all"))


def _memory() -> float:
    """This process's own memory in MiB; not what it has mapped of files, which all share and the kernel may drop."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


if __name__ == "__main__":
    # Else glibc keeps what small tensors free, and that is measured in their place; large ones it always gives back.
    if os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536") == "65536" and "MALLOC_ARENA_MAX" not in os.environ:
        os.environ["MALLOC_ARENA_MAX"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
