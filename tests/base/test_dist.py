"""Alone everything is the identity; two processes add up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import torch

from llavakit.base import dist

TWO = """
import torch
from llavakit.base import dist
with dist.start() as device:
    mine = torch.tensor([dist.rank() + 1.0], device=device)
    total = dist.all_sum(mine)
    dist.barrier()
    print(dist.rank(), dist.world_size(), dist.is_main(), mine.item(), total.item())
"""


def test_alone() -> None:
    with dist.start() as device:
        assert device == dist.device()
        assert (dist.rank(), dist.world_size(), dist.is_main()) == (0, 1, True)
        tensor = torch.ones(3)
        assert dist.all_sum(tensor) is tensor
        dist.barrier()
    assert not torch.distributed.is_initialized()


def test_two_processes() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO],
            env=shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert said == ["0 2 True 1.0 3.0", "1 2 False 2.0 3.0"]
