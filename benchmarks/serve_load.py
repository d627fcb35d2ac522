"""The server under four times the load it can sustain, for a minute: no crash, no answer lost or mixed up, memory flat.

    python benchmarks/serve_load.py runs/demo/model

Starts `llavakit serve` itself. First the sustainable rate is measured with as many callers as the batch has places;
then requests begin at four times that rate, whether or not earlier ones have ended. Exit code 1 where something fails.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
from PIL import Image

QUESTIONS = ["What do you see?", "What colour is the background?", "How many things are there?", "Is there a star?"]
PICTURES = 4
KINDS = PICTURES * len(QUESTIONS)
FLAT = 1.15
"""The most that memory may have grown since the first quarter."""


@contextmanager
def server(model: str, *words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "llavakit", "serve", model, "--port", "0", "--name", "model", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r" at (http://\S+)", line):
            break
    else:
        raise SystemExit("the server did not start; its last words:\n" + "".join(said[-5:]))
    threading.Thread(target=lambda: sys.stderr.writelines(process.stderr or [])).start()
    try:
        yield found[1], process
    finally:
        process.terminate()
        process.wait()


def messages(number: int) -> list[Any]:
    """Question ``number``: one of four about one of four pictures."""
    pixels = np.random.default_rng(number % PICTURES).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return asked(pixels, QUESTIONS[number // PICTURES % len(QUESTIONS)])


def asked(pixels: np.ndarray, text: str) -> list[Any]:
    """A question about a picture ``uint8[H, W, 3]``, as the API takes it."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    picture = {"url": "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()}
    return [{"role": "user", "content": [{"type": "image_url", "image_url": picture}, {"type": "text", "text": text}]}]


def memory(process: subprocess.Popen[str]) -> float:
    """Resident memory in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


async def measure(address: str, process: subprocess.Popen[str], seconds: float, places: int, times: float) -> bool:
    """Whether the server held."""
    client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=300)
    every = [messages(number) for number in range(KINDS)]

    async def answer(number: int) -> str | None:
        reply = await client.chat.completions.create(model="model", messages=every[number % KINDS], max_tokens=32)
        return reply.choices[0].message.content

    expected = [await answer(number) for number in range(KINDS)]
    rate = await sustainable(answer, places, max(5.0, seconds / 6))
    print(f"sustainable: {rate:.1f} answers/s; now {times * rate:.1f} requests/s for {seconds:g} s")
    results: Counter[str] = Counter()
    taken: list[float] = []

    async def one(number: int) -> None:
        began = time.monotonic()
        try:
            right = await answer(number) == expected[number % KINDS]
            taken.append(time.monotonic() - began)
            results["right" if right else "WRONG"] += 1
        except openai.RateLimitError as error:
            results["429" if "Retry-After" in error.response.headers else "429 WITHOUT Retry-After"] += 1
        except openai.OpenAIError as error:
            results[f"FAILED {type(error).__name__}"] += 1

    tasks, sizes, start = [], [], time.monotonic()
    for number in range(int(times * rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / (times * rate) - time.monotonic()))
        tasks.append(asyncio.create_task(one(number)))
        if number % max(1, int(times * rate)) == 0:
            sizes.append(memory(process))
    await asyncio.gather(*tasks)
    took, last = time.monotonic() - start, memory(process)
    growth = last / sizes[len(sizes) // 4]
    print(", ".join(f"{name}: {count}" for name, count in sorted(results.items())))
    print(f"{results['right'] / took:.1f} answers/s; half of the answers within {sorted(taken)[len(taken) // 2]:.1f} s")
    print(f"memory {sizes[0]:.0f} MiB at the start, {last:.0f} at the end, {growth:.2f} of the first quarter's")
    return process.poll() is None and set(results) <= {"right", "429"} and results["right"] > 0 and growth < FLAT


async def sustainable(answer: Any, places: int, seconds: float) -> float:
    """Answers a second with as many callers as places."""
    end = time.monotonic() + seconds

    async def caller(number: int) -> int:
        count = 0
        while time.monotonic() < end:
            await answer(number + count)
            count += 1
        return count

    return sum(await asyncio.gather(*(caller(number) for number in range(places)))) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=4, help="the sustainable load (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--queue", type=int, default=16)
    args = parser.parse_args()
    with server(args.model, "--batch-size", args.batch_size, "--queue", args.queue) as (address, process):
        held = asyncio.run(measure(address, process, args.seconds, args.batch_size, args.times))
    print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
