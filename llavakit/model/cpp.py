"""C++ of our own, compiled at its first use on a machine, which takes a few seconds, and kept.

Where there is no compiler or no Linux, callers use torch's own operations.
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
from collections.abc import Sequence
from pathlib import Path

import torch

from llavakit.base.files import writing
from llavakit.base.log import log

# Sums in any order, so that they become vector code; no -ffast-math, which would turn off denormals for the process.
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fassociative-math", "-fno-signed-zeros", "-fopenmp"]


@functools.cache
def library(source: Path, width: int) -> ctypes.CDLL | None:
    """``source``, compiled for heads of ``width``; None where that cannot be, and says why, once."""
    if sys.platform != "linux":
        return None
    slower = f"{source.stem}.cpp is not compiled, and this CPU computes more slowly"
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        log.info(f"{slower}: there is no C++ compiler")
        return None
    flags = [*FLAGS, f"-DWIDTH={width}"]
    # torch's own OpenMP where it has one: a second would start threads of its own.
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    flags += [str(openmp[0])] if openmp else []
    try:
        path = _folder() / f"{source.stem}-{_mark(source, compiler, flags)}.so"
        if not path.exists():
            with writing(path) as temporary:
                command = [compiler, str(source), *flags, "-o", str(temporary)]
                subprocess.run(command, check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # RuntimeError: there is no home
        said = getattr(error, "stderr", None) or str(error)
        log.warning(f"{slower}: {compiler}: {said.strip()[:300]}")
        return None


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llavakit"


def _mark(source: Path, compiler: str, flags: Sequence[str]) -> str:
    """What the compiled file depends on; machines that share a home may have different processors."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    processor = [line for line in info if line.startswith(("flags", "Features"))][:1]
    headers = sorted({*Path(__file__).parent.glob("*.h"), *source.parent.glob("*.h")})
    code = [path.read_text(encoding="utf-8") for path in (source, *headers)]
    parts = [*code, compiler, *flags, platform.machine(), *processor]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()
