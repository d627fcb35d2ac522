"""Holds `llavakit plan` against what is known: the published hours, and the memory that real steps take.

    python benchmarks/plan.py            # both
    python benchmarks/plan.py --hours    # the hours alone, in half a minute

Hours: of LLaVA-1.5 on 8 A100-80G, and which share of the peak the published ones are. Memory: real training steps of
random models, each in a process of its own, by the highest resident size over that before the model was made; on a GPU
by torch's own count. Planned and measured are of the same row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from llavakit.base.log import log, table

GIB = 2**30
PUBLISHED = {("llava15-7b", "align"): 3.5, ("llava15-13b", "align"): 5.5, ("llava15-13b", "tune"): 20.0}
# tower: width, hidden, layers, heads; language model: the same; words
SIZES = {
    "31M": ((256, 1024, 6, 4), (512, 1408, 8, 8), 32_000),
    "120M": ((384, 1536, 6, 6), (768, 2048, 12, 12), 32_000),
}
STAGES: dict[str, dict[str, Any]] = {
    "align": {"connector": 1e-3},
    "tune": {"connector": 2e-5, "language_model": 2e-5},
    "all": {"connector": 2e-5, "language_model": 2e-5, "vision_tower": 2e-6},
}
SEGMENTS, SUPERVISED = (720, 100), 80


@dataclass(frozen=True)
class Case:
    size: str
    stage: str
    precision: str
    small: bool = False
    checkpoint: str = "none"
    """Weights in bfloat16 and moments in 8 bits."""


CASES = [
    Case("31M", "align", "float32"),
    Case("31M", "align", "bfloat16"),
    Case("31M", "tune", "float32"),
    Case("31M", "tune", "bfloat16"),
    Case("31M", "all", "bfloat16"),
    Case("120M", "tune", "bfloat16"),
    Case("31M", "tune", "float32", checkpoint="layers"),
    Case("120M", "tune", "bfloat16", checkpoint="layers"),
    Case("120M", "tune", "bfloat16", checkpoint="products"),
    Case("31M", "tune", "bfloat16", small=True),
    Case("120M", "tune", "bfloat16", small=True),
]


def hours() -> str:
    from llavakit.recipes import resolve
    from llavakit.train.gpus import GPUS
    from llavakit.train.plan import Machines, plan

    rows, machines = [], Machines(GPUS["a100-80g"], 8)
    for name in ("llava15-7b", "llava15-13b"):
        for stage in plan(resolve(name), machines).stages:
            known = PUBLISHED.get((name, stage.name))
            peak = machines.count * machines.gpu.tflops * 1e12
            share = f"{stage.flops / (known * 3600 * peak):.0%}" if known else "-"
            shown = [f"{stage.tokens:.3g}", f"{stage.flops:.3g}", f"{stage.hours:.1f}", f"{known or '-'}", share]
            rows.append([name, stage.name, *shown])
    return table(rows, ["recipe", "stage", "tokens", "FLOPs", "hours at 40%", "published", "that is, of the peak"])


def model_of(case: Case) -> Any:
    """The random model of a case, its tensors where torch's default device is, and what trains in it."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig

    from llavakit.image.square import Square
    from llavakit.model.build import ModelSpec, outline
    from llavakit.train.shard import prepare

    (width, hidden, layers, heads), (h, intermediate, depth, attention), words = SIZES[case.size]
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        image_size=336, patch_size=14,
    )  # fmt: skip
    language = LlamaConfig(
        hidden_size=h, intermediate_size=intermediate, num_hidden_layers=depth, num_attention_heads=attention,
        vocab_size=words, max_position_embeddings=2048,
    )  # fmt: skip
    model = outline(vision, language, ModelSpec(vision="-", language="-"), Square(size=336))
    prepare(model, stage_of(case), device=torch.get_default_device())
    return model


def stage_of(case: Case) -> Any:
    from llavakit.train.stage import Stage

    small = {"weights": "bfloat16", "optimiser": "adamw8bit"} if case.small else {}
    given = {"data": {}, "template": "vicuna_v1", "train": STAGES[case.stage], "checkpoint": case.checkpoint}
    return Stage.parse({**given, "batch_size": 4, **small})


def planned(case: Case) -> float:
    import torch

    from llavakit.train.budget import Budget
    from llavakit.train.memory import Row

    with torch.device("meta"):
        model = model_of(case)
    row = Row(SEGMENTS, SUPERVISED, 1, 576)
    return Budget(model, stage_of(case), row, getattr(torch, case.precision)).whole().total


def measured(case: Case) -> float:
    """Bytes that two steps take at most, the second of two rows: then states and gradients are there."""
    import torch

    from llavakit.base.dist import device
    from llavakit.data.loader import Step
    from llavakit.model.lean import arrange_layers
    from llavakit.model.llava import Batch
    from llavakit.train.optim import COMPILED, adamw8bit, make_optimiser, set_rates
    from llavakit.train.step import train_step

    torch.set_num_threads(1)
    tokens, here = sum(SEGMENTS), device()
    numbers = torch.Generator().manual_seed(0)
    # What is imported on the way is no part of the model: its classes, and all that a first step brings in.
    with torch.device("meta"):
        model_of(case)
    one = torch.nn.Parameter(torch.zeros(2))
    warm = torch.optim.AdamW([one], fused=True)
    one.sum().backward()
    torch.nn.utils.clip_grad_norm_([one], 1.0)
    warm.step()
    if case.small:
        small = torch.nn.Parameter(torch.zeros(COMPILED // 512, 512, dtype=torch.bfloat16))
        few = adamw8bit([{"params": [small], "lr": 0.0}], (0.9, 0.999))
        small.grad = torch.ones_like(small)
        few.step()
        del small, few
    before = _resident()
    model = model_of(case).to(here).train()
    row = Batch(
        ids=torch.randint(0, 32_000, (tokens,), generator=numbers),
        positions=torch.cat([torch.arange(n) for n in SEGMENTS]),
        segments=list(SEGMENTS),
        predict=torch.arange(SUPERVISED) + 630,
        targets=torch.randint(0, 32_000, (SUPERVISED,), generator=numbers),
        pixels=torch.randint(0, 255, (1, 3, 336, 336), generator=numbers, dtype=torch.uint8),
        image_at=torch.arange(576) + 30,
    )
    arrange_layers(model.language_model, stage_of(case).checkpoint, compiled=False)
    optimiser = make_optimiser(model, stage_of(case))
    set_rates(optimiser, 1.0)
    for number, rows in enumerate(([row], [row, row])):
        step = Step(number, rows, 2 * len(rows), tokens * len(rows), SUPERVISED * len(rows))
        train_step(model, step, optimiser, 1.0, getattr(torch, case.precision))
    return torch.cuda.max_memory_allocated() if here.type == "cuda" else _resident("VmHWM") - before


def _resident(field: str = "VmRSS") -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def memory() -> str:
    # A freed block goes back to the system at once, or what is measured is the allocator's habits.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--measure", json.dumps(vars(case))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        real, ours = float(done.stdout), planned(case)
        rows.append(
            [*map(str, vars(case).values()), f"{ours / GIB:.2f}", f"{real / GIB:.2f}", f"{ours / real - 1:+.0%}"]
        )
        log.info("  ".join(rows[-1]))
    return table(rows, ["model", "trains", "precision", "small", "recomputed", "planned GiB", "measured GiB", "off by"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", action="store_true", help="the hours alone")
    parser.add_argument("--memory", action="store_true", help="the memory alone")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(measured(Case(**json.loads(args.measure))))
    else:
        print("\n\n".join(([] if args.memory else [hours()]) + ([] if args.hours else [memory()])))
