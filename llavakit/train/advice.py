"""A plan that does not fit, and the smallest change that does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from llavakit.train.plan import Machines, Plan, budget, empty, stage_sizes
from llavakit.train.stage import Recipe, Stage

GIB = 2**30
MOST_GPUS = 64


def too_large(plan: Plan, stage: str) -> bool:
    """Whether a stage does not fit in the way that a run of so many GPUs shares it."""
    assert plan.machines is not None
    found = next(s for s in plan.stages if s.name == stage)
    way = "FSDP" if plan.machines.count > 1 else "none"
    return found.memory[way].total > plan.machines.gpu.usable * GIB


def advice(plan: Plan) -> list[str]:
    """One line for every stage that does not fit: by how much, and the first change that makes it fit."""
    machines = plan.machines
    assert machines is not None
    lines = []
    for stage in plan.stages:
        if not too_large(plan, stage.name):
            continue
        memory = stage.memory["FSDP" if machines.count > 1 else "none"]
        short = memory.total / GIB - machines.gpu.usable
        said = f"{stage.name} does not fit: {short:.1f} GiB more than a GPU has to give"
        for change, recipe, on in _changes(plan.recipe, stage.name, machines):
            needs = _needs(recipe, stage.name, on)
            if needs <= machines.gpu.usable * GIB:
                lines.append(f"{said}; smallest change that does: {change} ({needs / GIB:.1f} GiB)")
                break
        else:
            lines.append(f"{said}; nor does it on {MOST_GPUS} of them, or with QLoRA: take a larger GPU")
    return lines


def _needs(recipe: Recipe, stage: str, machines: Machines) -> float:
    sizes, *_ = stage_sizes(recipe, stage, empty(recipe).image_tokens)
    _, memory = budget(recipe, stage, sizes)
    return (memory.whole() if machines.count == 1 else memory.sharded(machines.count)).total


def _changes(recipe: Recipe, name: str, machines: Machines) -> Iterator[tuple[str, Recipe, Machines]]:
    """From the least to the most that a person would mind: shorter rows and layers computed twice change nothing but
    speed, smaller weights little of what is learnt, more GPUs cost no more hours of theirs, adapters learn less."""
    stage = recipe.stages[name]

    def changed(changes: dict[str, Any]) -> Recipe:
        return recipe.evolve({f"stages.{name}.{key}": value for key, value in changes.items()})

    rows = [stage.row_tokens // divisor for divisor in (2, 4, 8) if stage.row_tokens // divisor >= 256]
    for tokens in rows:
        yield _words(name, {"row_tokens": tokens}), changed({"row_tokens": tokens}), machines
    again = {"checkpoint": "layers"} if stage.checkpoint == "none" else {}
    if again:
        yield _words(name, again), changed(again), machines
    if stage.optimiser != "adamw":
        return  # the others are for one process, whose weights are all its own
    alone = machines.count == 1 and recipe.precision == "bfloat16" and stage.lora is None
    if alone and stage.weights == "float32":
        small = {"weights": "bfloat16", "optimiser": "adamw8bit"}
        for changes in [small, small | again] if again else [small]:
            yield _words(name, changes), changed(changes), machines
    more = [n for n in (2, 4, 8) if n > machines.count]
    for number in more:
        yield f"{number} GPUs", recipe, replace(machines, count=number)
    if "language_model" in stage.train and stage.lora is None:
        yield from _adapters(name, stage, recipe, machines)
    number = max(16, 2 * machines.count)
    while number <= MOST_GPUS:
        yield f"{number} GPUs", recipe, replace(machines, count=number)
        number *= 2


def _words(name: str, changes: dict[str, Any]) -> str:
    """Changes to a stage as they are given on a command line."""
    return " ".join(f"stages.{name}.{key}={value}" for key, value in changes.items())


def _adapters(name: str, stage: Stage, recipe: Recipe, machines: Machines) -> Iterator[tuple[str, Recipe, Machines]]:
    ways: list[dict[str, Any]] = [{}, {"checkpoint": "layers"}] if stage.checkpoint == "none" else [{}]
    for base, again in product(("full", "nf4"), ways):
        lora = {"rank": 128, "alpha": 256, "base": base}
        shown = f"stages.{name}.lora='{{rank: 128, alpha: 256{', base: nf4' if base == 'nf4' else ''}}}' (and its rate)"
        changes = {f"stages.{name}.{key}": value for key, value in ({"lora": lora} | again).items()}
        yield f"{shown} {_words(name, again)}".strip(), recipe.evolve(changes), machines
