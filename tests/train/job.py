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
from pathlib import Path

from llavakit.base import dist
from llavakit.cli import main


def work(folder: Path, rank: int, near: int, commands: list[str]) -> None:
    os.dup2(os.open(folder / str(rank), os.O_CREAT | os.O_WRONLY), 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank % near)}
    with dist.start():
        for arguments in commands:
            if code := main(["train", *arguments.split()]):
                sys.exit(code)


if __name__ == "__main__":
    folder, ranks, near = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(near), "CUDA_VISIBLE_DEVICES": ""}
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(folder, rank, near, sys.argv[4:])) for rank in range(ranks)]
    for process in processes:
        process.start()
    (folder / "pids").write_text(" ".join(str(process.pid) for process in processes))
    for process in processes:
        process.join()
    print(" ".join(str(process.exitcode) for process in processes))
