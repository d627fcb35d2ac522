"""What a plan needs to know of a GPU: its memory, its dense bfloat16 peak, and about what an hour of it costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llavakit.base.errors import BadRequest, nearest
from llavakit.train.peak import measured_peak


@dataclass(frozen=True)
class Gpu:
    """``gib`` of memory, ``tflops`` dense in bfloat16; ``price`` of an hour in dollars, None where nobody rents it."""

    name: str
    gib: float
    tflops: float
    price: float | None

    @property
    def usable(self) -> float:
        """GiB that tensors can take: the driver and the communication buffers have theirs, and some is lost between
        blocks."""
        return 0.95 * self.gib - 1


# Makers' data sheets; prices are what clouds asked for in 2025 and 2026, rounded.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40g", 39.4, 312, 1.3),
        Gpu("a100-80g", 79.2, 312, 1.8),
        Gpu("h100", 79.1, 989, 2.5),
        Gpu("h200", 139.8, 989, 3.3),
        Gpu("b200", 178.0, 2250, 5.0),
        Gpu("l40s", 44.4, 362, 1.0),
        Gpu("l4", 22.0, 121, 0.6),
        Gpu("rtx4090", 23.6, 165, 0.5),
        Gpu("rtx3090", 23.6, 71, 0.3),
    )
}
HERE = "here"


def gpu_named(name: str) -> Gpu:
    """A GPU of the table, or with "here" this machine's own, its peak measured. Raises :class:`BadRequest` for another
    name."""
    if name == HERE:
        return _this_one()
    if name not in GPUS:
        raise BadRequest(f"no GPU {name!r}{nearest(name, GPUS)}; known: {', '.join(GPUS)}, {HERE}")
    return GPUS[name]


def _this_one() -> Gpu:
    if not torch.cuda.is_available():
        raise BadRequest(f"--gpu {HERE}: this machine has no GPU that torch sees; name one: {', '.join(GPUS)}")
    device = torch.device("cuda", torch.cuda.current_device())
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return Gpu(torch.cuda.get_device_name(device), memory, measured_peak(device, torch.bfloat16) / 1e12, None)
