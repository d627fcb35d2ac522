"""Memory in huge pages. What is read from end to end at every token, and lies in pages of 4 KiB, comes at half the
speed: the processor looks up where each page is, in a virtual machine twice over."""

from __future__ import annotations

import ctypes
import functools
import sys

import torch

FRAME = 2 << 20
COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1; done at once, whatever the system's settings are for memory to come
LEAST = 256 << 10


def hold(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, a dense one on the CPU, its memory in huge pages where Linux has them to give."""
    hold_at(tensor.data_ptr(), tensor.nbytes)
    return tensor


def hold_at(start: int, size: int) -> None:
    """So many bytes, with what else is in the first and the last frame. Nothing but their speed changes; an older
    Linux, or one without free frames, leaves them as they are."""
    advise = _advise()
    if advise is None or size < LEAST:
        return
    for frame in range(start // FRAME * FRAME, start + size, FRAME):
        advise(frame, FRAME, COLLAPSE)


@functools.cache
def _advise() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    return advise
