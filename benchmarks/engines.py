"""One stream through the server, engine by engine: time to the first token, and tokens a second after it.

    python benchmarks/engines.py [--size 496M] [--engines builtin,openvino,vllm] [--engine-python ~/vllm/bin/python]

Every engine is started by `llavakit serve --precision fast` on the same checkpoint of random weights, in bfloat16, and
asked through OpenAI's API: one question about a picture of 336 px (some 620 tokens), 128 tokens of greedy answer. The
best of several questions counts, each about another picture, after one to warm up.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openai

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serve_load import asked, server
from benchmarks.sized import SIZES, build, texts
from llavakit.base.log import table

LONG = 128


def question(number: int) -> list[Any]:
    """Question ``number`` about picture ``number``."""
    pixels = np.random.default_rng(number).integers(0, 256, (336, 336, 3), dtype=np.uint8)
    return asked(pixels, texts(number + 1)[number])


def stream(client: openai.OpenAI, number: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second after it."""
    times, tokens = [], 0
    start = time.perf_counter()
    for chunk in client.chat.completions.create(
        model="model",
        messages=question(number),
        max_tokens=LONG,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            times.append(time.perf_counter() - start)
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    # Several tokens may come in one piece, but the first and the last have their times.
    return times[0], (tokens - 1) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="496M", choices=SIZES)
    parser.add_argument("--engines", default="builtin,openvino")
    parser.add_argument("--engine-python", help="of the environment that vLLM is installed in")
    parser.add_argument("--times", type=int, default=4)
    options = parser.parse_args()
    path = build(options.size)
    rows = []
    for engine in options.engines.split(","):
        words = ["--engine", engine, "--precision", "fast"]
        words += ["--engine-python", options.engine_python] if engine == "vllm" and options.engine_python else []
        with server(str(path), *words) as (address, _), openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client:
            stream(client, 0)
            found = [stream(client, number) for number in range(1, options.times + 1)]
        first, rate = min(first for first, _ in found), max(rate for _, rate in found)
        rows.append([engine, f"{first:.2f}", f"{rate:.1f}"])
        print(*rows[-1], flush=True)
    print(table(rows, ["engine", "first token s", "tokens/s"]))


if __name__ == "__main__":
    main()
