"""Rank, world, sums over ranks. Torch is imported only where a process group is at work."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """This process among all; 0 when it is alone."""
    group = _group()
    return group.get_rank() if group else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes work together; 1 when alone."""
    group = _group()
    return group.get_world_size() if group else int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the one process that writes files and speaks."""
    return rank() == 0


def local_rank() -> int:
    """This process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def device() -> torch.device:
    """This process's own GPU, or the CPU where there is none."""
    import torch

    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def all_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks, detached; the tensor itself when this process is alone."""
    if world_size() == 1:
        return tensor
    import torch.distributed as dist

    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def barrier() -> None:
    """Waits until every rank is here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


@contextlib.contextmanager
def start() -> Iterator[torch.device]:
    """Joins the process group that torchrun describes, if it does, and yields :func:`device`.

    Inside a group that runs already, or without torchrun, nothing is joined and nothing is left.
    """
    here = device()
    if here.type == "cuda":
        import torch

        torch.cuda.set_device(here)
    if "RANK" not in os.environ or _group():
        yield here
        return
    import torch.distributed as dist

    if here.type == "cuda":
        # Gloo beside NCCL: checkpoints and counts are exchanged as CPU tensors.
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=here)
    else:
        dist.init_process_group("gloo")
    yield here
    # Not in a `finally`: when this rank failed the others wait in a collective, and leaving the group in good order
    # would wait for them for ever. Torchrun ends them when this process dies.
    dist.destroy_process_group()


def _group() -> Any:
    """``torch.distributed`` when a process group runs. It cannot run unless somebody imported it."""
    module = sys.modules.get("torch.distributed")
    return module if module is not None and module.is_available() and module.is_initialized() else None
