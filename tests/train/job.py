"""Several ranks on this machine: ``python -m tests.train.job FOLDER RANKS NEAR ARGUMENTS ...`` runs ``llavakit train
ARGUMENTS`` for each of these in turn, in one process group, ``NEAR`` ranks to a machine.

``FOLDER/pids`` names the processes, ``FOLDER/RANK`` gets what each says on standard error, and standard output their
exit codes. They are forked, so that torch is imported once.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from llavakit.base import dist
from llavakit.cli import main


def fork(folder: Path, ranks: int, near: int, work: Callable[[], None]) -> list[int | None]:
    """Does ``work`` on every rank and returns their exit codes. For a process that has not computed yet: threads of
    its own would be missing in the ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(near), "CUDA_VISIBLE_DEVICES": ""}
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(folder, rank, near, work)) for rank in range(ranks)]
    for process in processes:
        process.start()
    (folder / "pids").write_text(" ".join(str(process.pid) for process in processes))
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _rank(folder: Path, rank: int, near: int, work: Callable[[], None]) -> None:
    os.dup2(os.open(folder / str(rank), os.O_CREAT | os.O_WRONLY), 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank % near)}
    with dist.start():
        work()


def _train(commands: list[str]) -> None:
    for arguments in commands:
        if code := main(["train", *arguments.split()]):
            sys.exit(code)


if __name__ == "__main__":
    folder, ranks, near = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    codes = fork(folder, ranks, near, lambda: _train(sys.argv[4:]))
    print(" ".join(str(code) for code in codes))
