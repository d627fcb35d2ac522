"""One stream of long answers: our engine as it is, and with OpenVINO under it, at either precision.

    python benchmarks/openvino.py [--times 3] [--size small|496M]

Both are given the same encoded question; nothing is cached when the clock starts. Needs llavakit[openvino].
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sized import SIZES, build, questions, same

from llavakit.engine.cache import Features, Prefixes
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.model import checkpoint
from llavakit.model.encode import Example
from llavakit.serve import openvino

LONG = 64


def ours(path: Path, dtype: torch.dtype) -> Engine:
    return Engine(*checkpoint.load(path, dtype))


def timed(engine: Engine, example: Example, tokens: int, clock: Callable[[], float]) -> tuple[float, list[int]]:
    """Seconds of an answer about a picture that the engine has not seen."""
    engine.features = engine.batch.pictures.features = Features(0)
    engine.prefixes = engine.batch.prefixes = Prefixes(0)
    start = clock()
    (pieces,) = engine.replies([example], Decoding(max_new_tokens=tokens))
    return clock() - start, [id for piece in pieces for id in piece.ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="repetitions, of which the least counts")
    parser.add_argument("--size", default="small", choices=SIZES)
    args = parser.parse_args()
    path = build(args.size)
    engines = {
        "builtin float32": ours(path, torch.float32),
        "openvino float32": openvino.load(path),
        "builtin bfloat16": ours(path, torch.bfloat16),
        "openvino fast": openvino.load(path, precision="fast"),
    }
    asked = questions(engines["builtin float32"].codec, 1, 1)[0]
    least = {name: {1: [9e9, 9e9], LONG: [9e9, 9e9]} for name in engines}
    answers = {}
    for _ in range(args.times):
        for name, engine in engines.items():  # in turn, so that a busy machine is busy for all
            for tokens, best in least[name].items():
                for number, clock in enumerate((time.perf_counter, time.process_time)):
                    seconds, answers[name] = timed(engine, asked, tokens, clock)
                    best[number] = min(best[number], seconds)
    reference = answers["builtin float32"]
    for name, found in least.items():
        first, rest = found[1], [a - b for a, b in zip(found[LONG], found[1], strict=True)]
        rates = [(LONG - 1) / seconds for seconds in rest]
        print(
            f"{name:<18} first token {first[0]:.3f} s (CPU {first[1]:.3f} s), then {rates[0]:.1f} tokens/s "
            f"(of CPU {rates[1]:.1f}), same as float32 {same([answers[name]], [reference]):.2f}",
            flush=True,
        )
    if answers["openvino float32"] != reference:
        raise SystemExit("OpenVINO's float32 answer differs from ours")


main()
