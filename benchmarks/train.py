"""A training step of llavakit beside the plain way: transformers' llava, a padded batch, its own loss.

    python benchmarks/train.py [--stages 1,2] [--threads 2] [--clock cpu]    both stages, on LLaVA's lengths
    python benchmarks/train.py --size 7b --gpu                               true size, random weights
    python benchmarks/train.py --layer 7b                                    one layer of 4096, forward and backward

Same weights, same samples, and the first losses must agree (1e-4 in float32, 1e-2 in bfloat16) or it ends with an
error. Sides are timed in turn in one process, the least of several rounds counts; memory is that of a process of each
side's own. ``needed`` is the share of the rate of a matrix product, measured in the same run, at which the arithmetic
that the step needs (see :class:`benchmarks.training.Work`) got done. In the small size the head is 39 % of the language
model's weights, at 7B it is 2 %: there less is gained by leaving it out.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.lengths import Sample, align, tune
from benchmarks.training import SIDES, SIZES, Work, examples, stage_of
from llavakit.base.log import table
from llavakit.data.pack import pack

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
VARIANTS = {
    # name -> precision of ours, precision of theirs, goals of stage 1 and 2
    "float32": ("float32", "float32", {1: 2.0, 2: 2.2}),
    "bfloat16": ("bfloat16", "bfloat16", {1: 2.5, 2: 2.5}),
    "out of the box": ("bfloat16", "float32", {1: 5.0, 2: 8.0}),
}


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(memory(options)))
        return
    if options.layer:
        layer(options)
        return
    packing(options)
    rows = []
    for stage in map(int, options.stages.split(",")):
        for variant in options.variants.split(","):
            rows.append(compare(options, stage, variant))
            print(json.dumps(rows[-1]), flush=True)
    keys = list(rows[0])
    print(table([[str(row[key]) for key in keys] for row in rows], keys))


def compare(options: argparse.Namespace, stage: int, variant: str) -> dict[str, Any]:
    mine, other, goals = VARIANTS[variant]
    batches = batches_of(options, stage)
    precisions = {"ours": mine, "plain": other}
    # Beside each other where both fit, so that a busy machine is busy for both.
    turns = [precisions] if options.size == "small" else [{name: dtype} for name, dtype in precisions.items()]
    losses: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for turn in turns:
        timed(options, stage, turn, batches, losses, seconds)
    apart = abs(losses["ours"] - losses["plain"]) / losses["plain"]
    if apart > (1e-4 if mine == other == "float32" else 1e-2):
        raise SystemExit(f"stage {stage}, {variant}: losses differ, {losses}")
    rate = product_rate(options, DTYPES[mine])
    work = sum(Work.of(options.size, stage, batch).total for batch in batches)
    drawn = [sample for batch in batches for sample in batch]
    tokens, supervised = sum(map(len, drawn)), sum(sample.supervised for sample in drawn)
    row = {
        "stage": stage,
        "variant": variant,
        "ratio": round(seconds["plain"] / seconds["ours"], 2),
        "goal": goals[stage],
        "step s": round(seconds["ours"] / len(batches), 3),
        "plain s": round(seconds["plain"] / len(batches), 3),
        "tokens/s": round(tokens / seconds["ours"]),
        "supervised/s": round(supervised / seconds["ours"]),
        "GFLOP/s": round(work / seconds["ours"] / 1e9, 1),
        "matmul": round(rate / 1e9, 1),
        "needed": f"{work / seconds['ours'] / rate:.0%}",
        "apart": f"{apart:.1e}",
    }
    if options.no_memory:
        return row
    used = {name: peak(options, stage, precision, name) for name, precision in precisions.items()}
    return row | {f"{name} MiB": round(taken / 2**20) for name, taken in used.items()}


def timed(
    options: argparse.Namespace,
    stage: int,
    precisions: dict[str, str],
    batches: list[list[Sample]],
    losses: dict[str, float],
    seconds: dict[str, float],
) -> None:
    """Fills ``losses`` of the first step and ``seconds`` of all, for the sides in ``precisions``, which take turns."""
    sides = {name: made(options, stage, name, dtype) for name, dtype in precisions.items()}
    steps = {name: [s.prepare(examples(batch, i)) for i, batch in enumerate(batches)] for name, s in sides.items()}
    for name, side in sides.items():
        losses[name], seconds[name] = side.step(steps[name][0]), 0.0
    for number in range(len(batches)):
        best = dict.fromkeys(sides, float("inf"))
        for _ in range(options.rounds):
            for name, side in sides.items():
                best[name] = min(best[name], clocked(options, functools.partial(side.step, steps[name][number])))
        for name in sides:
            seconds[name] += best[name]
    if options.gpu:
        # The next side, or the process that measures memory, needs the room.
        del sides, side
        gc.collect()
        torch.cuda.empty_cache()


def made(options: argparse.Namespace, stage: int, side: str, precision: str) -> Any:
    chosen = stage_of(stage, options.batch, options.row_tokens, options.checkpoint, options.compile)
    return SIDES[side](options.size, chosen, DTYPES[precision], device(options))


def packing(options: argparse.Namespace) -> None:
    """How full rows get that hold the samples of steps of 128 of the 665K mix, and no others."""
    lengths = [len(sample) for sample in tune(128 * 40, options.seed)]
    steps = [lengths[i : i + 128] for i in range(0, len(lengths), 128)]
    for capacity in (4096, 8192):
        fills = [[sum(step[i] for i in row) / capacity for row in pack(step, capacity)] for step in steps]
        full = [fill for step in fills for fill in sorted(step)[1:]]
        rows = sum(map(len, fills))
        print(
            f"packing into rows of {capacity}: {sum(full) / len(full):.1%} full but for the last row of each step "
            f"({sum(lengths) / capacity / rows:.1%} with it), {rows / len(steps):.1f} rows a step of 128 samples"
        )


def batches_of(options: argparse.Namespace, stage: int) -> list[list[Sample]]:
    drawn = {1: align, 2: tune}[stage](options.batch * options.steps, options.seed)
    return [drawn[i : i + options.batch] for i in range(0, len(drawn), options.batch)]


def device(options: argparse.Namespace) -> str:
    return "cuda" if options.gpu else "cpu"


def clocked(options: argparse.Namespace, work: Callable[[], Any]) -> float:
    """Seconds of ``work``: of the wall, or of the processor where other programs run beside."""
    now = time.process_time if options.clock == "cpu" else time.perf_counter
    start = now()
    work()
    if options.gpu:
        torch.cuda.synchronize()
    return now() - start


def product_rate(options: argparse.Namespace, dtype: torch.dtype) -> float:
    """FLOP/s of products as the language model's MLP has them, the best of several."""
    _, (h, intermediate, _, _) = SIZES[options.size]
    a = torch.randn(4096, h, dtype=dtype, device=device(options))
    b = torch.randn(intermediate, h, dtype=dtype, device=device(options))
    best = min(clocked(options, lambda: torch.nn.functional.linear(a, b)) for _ in range(8))
    return 2 * 4096 * h * intermediate / best


def peak(options: argparse.Namespace, stage: int, precision: str, side: str) -> int:
    """Bytes that a process of its own takes for model, optimiser and steps, above what it took for its imports."""
    wanted = f"{side},{stage},{precision}"
    out = subprocess.run([sys.executable, *sys.argv, "--memory", wanted], check=True, capture_output=True, text=True)
    return int(json.loads(out.stdout)["bytes"])


def memory(options: argparse.Namespace) -> dict[str, int]:
    name, stage, precision = options.memory.split(",")
    before = 0 if options.gpu else resident()
    side = made(options, int(stage), name, precision)
    # The longest step decides.
    longest = max(batches_of(options, int(stage)), key=lambda batch: sum(map(len, batch)))
    for _ in range(2):
        side.step(side.prepare(examples(longest)))
    if options.gpu:
        return {"bytes": torch.cuda.max_memory_allocated()}
    return {"bytes": resident("VmHWM") - before}


def resident(what: str = "VmRSS") -> int:
    """Bytes of memory now, or at most. Not getrusage: its maximum is also that of the process that started this one."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))


def layer(options: argparse.Namespace) -> None:
    """One language layer, every position of a packed row of stage 2, forward and backward with weight gradients."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from llavakit.model.lean import packed_states

    _, (h, intermediate, _, heads) = SIZES[options.layer]
    config = LlamaConfig(
        vocab_size=8, hidden_size=h, intermediate_size=intermediate, num_hidden_layers=1, num_attention_heads=heads
    )
    with torch.device(device(options)):
        model = LlamaForCausalLM(config).train()
    lengths = [len(sample) for sample in tune(options.batch, options.seed)]
    positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])
    x = torch.randn(1, len(positions), h, device=model.device, requires_grad=True)
    tokens = len(positions)
    work = 3 * (2 * tokens * (4 * h * h + 3 * h * intermediate) + 2 * h * sum(length**2 for length in lengths))

    def step(dtype: torch.dtype) -> None:
        model.zero_grad()
        with torch.autocast(device(options), dtype=dtype, enabled=dtype != torch.float32):
            states = packed_states(model, positions, lengths, inputs_embeds=x)
        states.float().sum().backward()

    rows = []
    for name in options.dtypes.split(","):
        options.size = options.layer
        seconds = min(clocked(options, functools.partial(step, DTYPES[name])) for _ in range(options.rounds))
        rate = product_rate(options, DTYPES[name])
        shares = [f"{work / seconds / 1e9:.1f}", f"{rate / 1e9:.1f}", f"{work / seconds / rate:.0%}"]
        rows.append([name, str(tokens), f"{seconds:.2f}", *shares])
    print(table(rows, ["precision", "tokens", "seconds", "GFLOP/s", "matmul", "share (goal 75%)"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="1,2")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--layer", choices=SIZES, help="one layer of that size, every position, forward and backward")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="of --layer")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument(
        "--checkpoint", default="none", choices=["none", "layers", "products"], help="what is recomputed"
    )
    parser.add_argument("--compile", action="store_true", help="the language model's layers")
    parser.add_argument("--steps", type=int, default=3, help="different batches, each timed")
    parser.add_argument("--rounds", type=int, default=2, help="times that each is timed, of which the least counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure memory, which takes processes of its own"
    )
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
