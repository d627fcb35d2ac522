"""Rank, world, what ranks tell each other. Torch is imported only where a process group is at work."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from llavakit.base.errors import LlavakitError, WorkFailed

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a rank waits for the others: the first alone may pretrain backbones, or write 26 GB to a slow disk."""


LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""In what gloo raises on ranks that wait for one which has died."""


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


def local_size() -> int:
    """How many processes work on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


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


def background() -> Any:
    """A group of all ranks for a thread beside the main one, whose messages would mix with those of the common group;
    None for a process alone."""
    if world_size() == 1:
        return None
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=PATIENCE)


def share(value: T, group: Any = None) -> list[T]:
    """What every rank has for ``value``, by rank. For small things: they are pickled."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group)
    return values


def first(work: Callable[[], T]) -> T:
    """Does ``work`` on the first rank alone and gives every rank its small result.

    What it raises is raised there; the other ranks end in silence with its exit code.
    """
    if world_size() == 1:
        return work()
    import torch.distributed as dist

    result: list[Any] = [None, 0]
    failure = None
    if is_main():
        try:
            result[0] = work()
        except Exception as error:
            failure, result[1] = error, _exit_code(error)
    dist.broadcast_object_list(result)
    if failure is not None:
        raise failure
    if result[1]:
        raise SystemExit(result[1])
    out: T = result[0]
    return out


def together(work: Callable[[], T]) -> T:
    """Does ``work``, which waits for no other rank, on all of them; when it fails on one, no rank goes on.

    The ranks whose own work was well end in silence.
    """
    if world_size() == 1:
        return work()
    out: Any = None
    failure = None
    try:
        out = work()
    except Exception as error:
        failure = error
    code = max(share(0 if failure is None else _exit_code(failure)))
    if failure is not None:
        raise failure
    if code:
        raise SystemExit(code)
    result: T = out
    return result


def fail(error: LlavakitError) -> NoReturn:
    """Raises on the first rank what all ranks have come to; the others end in silence."""
    raise error if is_main() else SystemExit(error.exit_code)


def _exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, LlavakitError) else 1


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
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=here, timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield here
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST):
            raise
        raise WorkFailed(f"rank {rank()} lost the other ranks; what the first of them says is the cause") from None
    # Not in a `finally`: when this rank failed the others wait in a collective, and leaving the group in good order
    # would wait for them for ever. Torchrun ends them when this process dies.
    dist.destroy_process_group()


def _group() -> Any:
    """``torch.distributed`` when a process group runs. It cannot run unless somebody imported it."""
    module = sys.modules.get("torch.distributed")
    return module if module is not None and module.is_available() and module.is_initialized() else None
