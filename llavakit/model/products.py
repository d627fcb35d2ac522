"""Which of torch's libraries multiplies float32 matrices on a CPU.

By default MKL does, which on processors of other makers may take a slow path. oneDNN is reached by allowing it less
exact products, and where the processor has none that would pay it gives float32 all the same: so speed and error are
measured, and it is chosen only where it is much faster and as exact. The choice is kept: the same machine always
computes the same way, or a run, its resumption and its repetition would differ in their last bits.
"""

from __future__ import annotations

import hashlib
import platform
import time
from pathlib import Path
from typing import Any

import torch

from llavakit.base.cache import cache_folder
from llavakit.base.files import write_text
from llavakit.base.log import log

CHOICES = ("none", "ieee", "bf16")
FASTER = 1.4
EXACT = 4e-6  # of the largest entry; products in bfloat16 are at 2e-3


def choose_products() -> None:
    """Sets ``torch.backends.mkldnn.matmul.fp32_precision`` for this process, where it is the default's still."""
    how: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if not torch.backends.mkldnn.is_available() or how.fp32_precision not in ("none", "ieee"):
        return
    kept = cache_folder() / f"products-{_machine()}"
    chosen = _read(kept)
    if chosen not in CHOICES:
        chosen = _measured(how)
        try:
            write_text(kept, chosen)
        except OSError as error:
            log.warning(f"how products are computed is measured again at every start: {kept}: {error.strerror}")
    how.fp32_precision = chosen


def _read(kept: Path) -> str | None:
    try:
        return kept.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        log.warning(f"{kept} cannot be read and is made anew: {error}")
        return None


def _machine() -> str:
    """What the choice depends on: the processor, and torch's own build."""
    info = Path("/proc/cpuinfo")
    names = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    name = next((line for line in names if line.startswith("model name")), platform.processor())
    known = f"{name} {torch.backends.cpu.get_cpu_capability()} {torch.__version__}"
    return hashlib.blake2b(known.encode(), digest_size=8).hexdigest()


def _measured(how: Any) -> str:
    before: str = how.fp32_precision
    drawn = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=drawn) for shape in ((512, 512), (512, 768)))
    exact = a.double() @ b.double()
    seconds, error = {}, 0.0
    try:
        for precision in (before, "bf16"):
            how.fp32_precision = precision
            error = float((a @ b - exact).abs().max() / exact.abs().max())
            seconds[precision] = min(_seconds(a, b) for _ in range(4))
    finally:
        how.fp32_precision = before
    if error > EXACT or seconds[before] <= FASTER * seconds["bf16"]:
        return before
    log.info(f"float32 products by oneDNN: {seconds[before] / seconds['bf16']:.1f} times as fast, error {error:.0e}")
    return "bf16"


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.process_time()
    a @ b
    return time.process_time() - start
