"""Products of our own (``products.h``) against oneDNN's with weights reordered before, by the number of tokens.

    python benchmarks/products.py [--times 15] [--threads 2]

In turn, so that a busy machine is busy for both; the lower quartile of each counts. Matrices of the small size of
``vqa.py`` and of a 7B model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from llavakit.base.log import table
from llavakit.engine.kernel import kernel
from llavakit.engine.linear import Blocks, Panels

MATRICES = ((512, 1408), (1408, 512), (4096, 4096))
TOKENS = (1, 6, 24, 64, 256, 620)


def quartiles(ways: list[Callable[[], object]], times: int) -> list[float]:
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(times):
        for way, seconds in zip(ways, taken, strict=True):
            start = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - start)
    return [sorted(seconds)[times // 4] for seconds in taken]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--times", type=int, default=15)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
lines = []
with torch.inference_mode():
    for dtype in (torch.float32, torch.bfloat16):
        for inputs, outputs in MATRICES:
            weight = torch.randn(outputs, inputs).to(dtype)
            run = kernel(weight.device, dtype, 64)
            ours = None if run is None else Panels.of(run, weight, None)
            if ours is None:
                print(f"{dtype}, {inputs} -> {outputs}: no products of our own on this machine; oneDNN's are used")
                continue
            theirs = Blocks(weight, None)
            line = [str(dtype).removeprefix("torch."), f"{inputs} -> {outputs}"]
            for tokens in TOKENS:
                x = torch.randn(tokens, inputs).to(dtype)
                ways = [partial(way, x, "nothing", None) for way in (ours, theirs)]
                a, b = (way().float() for way in ways)
                if (a - b).abs().max() > (1e-5 if dtype == torch.float32 else 1e-2) * b.abs().max():
                    raise SystemExit(f"{dtype}, {tokens} tokens: the products differ")
                mine, other = quartiles(ways, args.times)
                line.append(f"{other / mine:.2f} ({2e-9 * tokens * inputs * outputs / mine:.0f})")
            lines.append(line)
print("oneDNN's time over ours (GFLOP/s of ours), by tokens")
print(table(lines, ["type", "matrix", *map(str, TOKENS)]))
