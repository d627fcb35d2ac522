"""A plan as aligned tables."""

from __future__ import annotations

from llavakit.base.log import table
from llavakit.model.parts import PARTS, Part
from llavakit.train.advice import GIB, advice
from llavakit.train.plan import Plan, StagePlan
from llavakit.train.stage import Stage

KINDS = ("weights", "copies", "gradients", "optimiser", "activations", "logits", "total")


def text(plan: Plan) -> str:
    """The plan for a person; what does not fit, or will be refused, stands at its end."""
    recipe = plan.recipe
    head = (
        f"{recipe.name} ({recipe.hash()}): {recipe.model.vision} + {recipe.model.language}\n"
        f"at most {plan.image_tokens} tokens per image, context {recipe.max_length}, {recipe.precision}"
    )
    parts = [head, _parts(plan), _stages(plan)]
    if plan.machines is not None:
        parts += [_memory(plan), *advice(plan)]
    parts += [note for stage in plan.stages if (note := _warmup(stage))]
    return "\n\n".join(parts)


def _parts(plan: Plan) -> str:
    recipe = plan.recipe
    rows = [
        [name, f"{plan.sizes[name]:,}"]
        + [cell for stage in plan.stages for cell in (_rate(recipe.stages[stage.name], name), _trains(stage, name))]
        for name in PARTS
    ]
    totals = [["", f"{sum(stage.trainable.values()):,}"] for stage in plan.stages]
    rows.append(["total", f"{plan.parameters:,}", *(cell for pair in totals for cell in pair)])
    return table(rows, ["part", "parameters", *(c for s in plan.stages for c in (f"rate in {s.name}", "that train"))])


def _stages(plan: Plan) -> str:
    recipe, machines = plan.recipe, plan.machines
    head = ["stage", "template", "samples", "batch", "steps", "tokens", "lengths", "FLOPs"]
    rows = [
        [
            s.name,
            recipe.stages[s.name].template,
            f"{s.samples:,}{' (published)' if s.published else ''}",
            str(recipe.stages[s.name].batch_size),
            f"{s.steps:,}",
            f"{s.tokens:.3g}",
            s.lengths,
            f"{s.flops:.3g}",
            *([] if machines is None else [f"{s.hours:.2f}", "-" if s.cost is None else f"${s.cost:,.0f}"]),
        ]
        for s in plan.stages
    ]
    if machines is None:
        return table(rows, head)
    price = machines.gpu.price if machines.price is None else machines.price
    costs = "" if price is None else f", at ${price:g} an hour each"
    said = (
        f"hours and cost: {machines.count} x {machines.gpu.name} at {machines.mfu:.0%} of {machines.gpu.tflops:g} "
        f"TFLOP/s{costs}"
    )
    return f"{table(rows, [*head, 'hours', 'cost'])}\n{said}"


def _memory(plan: Plan) -> str:
    machines = plan.machines
    assert machines is not None
    rows = []
    for stage in plan.stages:
        for way, memory in stage.memory.items():
            sizes = [f"{getattr(memory, kind) / GIB:.1f}" for kind in KINDS]
            fits = "yes" if memory.total <= machines.gpu.usable * GIB else "no"
            rows.append([stage.name, way, *sizes, fits])
    head = ["memory per GPU, GiB", "sharding", *KINDS, f"fits {machines.gpu.gib:.0f}"]
    said = (
        f"fits: within {machines.gpu.usable:.1f} GiB, for the driver and its buffers have the rest; copies: weights in "
        f"{plan.recipe.precision}"
    )
    return f"{table(rows, head)}\n{said}"


def _trains(stage: StagePlan, name: Part) -> str:
    return f"{stage.trainable[name]:,}" if stage.trainable[name] else "-"


def _rate(stage: Stage, name: Part) -> str:
    if name not in stage.train:
        return "frozen"
    some = f", last {stage.tower_layers} layers" if name == "vision_tower" and stage.tower_layers else ""
    if stage.lora is not None and name in stage.lora.parts:
        some += f", {'DoRA' if stage.lora.dora else 'LoRA'} {stage.lora.rank}"
    return f"{stage.train[name]:g}{some}"


def _warmup(stage: StagePlan) -> str:
    if stage.warmup <= stage.steps:
        return ""
    return (
        f"{stage.name}: the warm-up of {stage.warmup:,} steps is longer than the stage, whose rate would end at "
        f"{stage.steps / stage.warmup:.0%} of its peak; training refuses that: give stages.{stage.name}.warmup=0.03"
    )
