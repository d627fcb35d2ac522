"""Decoding's attention as C++ of our own, compiled on the machine at its first use (a second or two) and kept.

torch's attention reads a shared prefix slowly for the few queries of a decoding step, and bfloat16 more slowly still.
Where there is no compiler, no Linux or no CPU, torch's is used (:mod:`llavakit.engine.attend`).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from llavakit.base.files import writing
from llavakit.base.log import log
from llavakit.engine.attend import Chain

SOURCE = Path(__file__).with_name("attend.cpp")
# Sums in any order, so that they become vector code; no -ffast-math, which would turn off denormals for the process.
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fassociative-math", "-fno-signed-zeros", "-fopenmp"]

Rooms = tuple[torch.Tensor, torch.Tensor]


class Attention:
    """Who sees what in one decoding step of T rows, each with a chain of shared parts and its own tokens after it."""

    def __init__(
        self, run: Callable[..., None], chains: Sequence[Chain], own: Rooms, first: int, lengths: Sequence[int]
    ) -> None:
        """``own``: keys and values ``[layers, places, H, room, d]``, of which row i has place ``first + i``."""
        self.run, self.tokens = run, len(lengths)
        self.heads, self.width = own[0].shape[2], own[0].shape[4]
        self.half = int(own[0].dtype == torch.bfloat16)
        table: list[list[int]] = []
        rows: list[int] = []
        self.held = (chains, own)  # the table holds addresses

        def segment(keys: torch.Tensor, values: torch.Tensor, members: list[int]) -> None:
            assert keys.stride() == values.stride() and keys.stride()[2:] == (self.width, 1)
            places = [keys.data_ptr(), values.data_ptr(), keys.stride(0), keys.stride(1)]
            table.append([*places, keys.shape[2], len(rows), len(members)])
            rows.extend(members)

        for level in range(max(map(len, chains), default=0)):
            members: dict[tuple[int, int], list[int]] = {}
            for row, chain in enumerate(chains):
                if level < len(chain):
                    members.setdefault((chain[level].keys.data_ptr(), len(chain[level])), []).append(row)
            for found in members.values():
                shared = chains[found[0]][level]
                segment(shared.keys, shared.values, found)
        for row, count in enumerate(lengths):
            segment(own[0][:, first + row, :, :count], own[1][:, first + row, :, :count], [row])
        self.table, self.rows = torch.tensor(table), torch.tensor(rows)

    def __call__(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """``q [T, heads, d]`` -> ``[T, H, R, d]``; R queries share a key head."""
        if q.stride()[1:] != (self.width, 1):
            q = q.contiguous()
        out = torch.empty(len(q), self.heads, q.shape[1] // self.heads, self.width, dtype=q.dtype)
        self.run(
            self.table.data_ptr(),
            len(self.table),
            self.rows.data_ptr(),
            layer,
            self.tokens,
            self.heads,
            out.shape[2],
            q.data_ptr(),
            q.stride(0),
            out.data_ptr(),
            scale,
            self.half,
            torch.get_num_threads(),
        )
        return out


def kernel(device: torch.device, dtype: torch.dtype, width: int) -> Callable[..., None] | None:
    """The compiled function for heads of ``width``, or None where there is none; says why, once."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16) or sys.platform != "linux":
        return None
    return _built(width)


@functools.cache
def _built(width: int) -> Callable[..., None] | None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        log.info("decoding uses torch's attention, which is slower than our own: there is no C++ compiler")
        return None
    flags = [*FLAGS, f"-DWIDTH={width}"]
    # torch's own OpenMP where it has one: a second would start threads of its own.
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    flags += [str(openmp[0])] if openmp else []
    path = _folder() / f"attend-{_mark(compiler, flags)}.so"
    try:
        if not path.exists():
            with writing(path) as temporary:
                command = [compiler, str(SOURCE), *flags, "-o", str(temporary)]
                subprocess.run(command, check=True, capture_output=True, text=True)
        run = ctypes.CDLL(str(path)).attend
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning(f"decoding uses torch's attention, which is slower than our own: {compiler}: {said.strip()[:300]}")
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    run.argtypes = [pointer, number, pointer, *[number] * 4, pointer, number, pointer, ctypes.c_float, number, number]
    run.restype = None
    built: Callable[..., None] = run
    return built


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llavakit"


def _mark(compiler: str, flags: Sequence[str]) -> str:
    """What the compiled file depends on; machines that share a home may have different processors."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    processor = [line for line in info if line.startswith(("flags", "Features"))][:1]
    parts = [SOURCE.read_text(encoding="utf-8"), compiler, *flags, platform.machine(), *processor]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()
