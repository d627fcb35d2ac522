"""The run: stages in order, each a short loop over steps; metrics, snapshots, native checkpoints. One process, or as
many as torchrun starts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llavakit import __version__
from llavakit.base import dist
from llavakit.base.errors import WorkFailed
from llavakit.base.files import JsonlLog
from llavakit.base.log import Clock, log, metrics_line, progress, untimed
from llavakit.data.loader import Steps, workers_alive
from llavakit.data.mixture import Mixture
from llavakit.data.ranks import agreed
from llavakit.model import checkpoint
from llavakit.model.adapters import merge
from llavakit.model.llava import Llava
from llavakit.model.parts import count
from llavakit.train.backbones import pretrain
from llavakit.train.begin import begin, check_machine
from llavakit.train.claim import claim
from llavakit.train.curve import draw_curve
from llavakit.train.optim import make_optimiser, set_rates
from llavakit.train.schedule import schedule
from llavakit.train.shard import mesh, prepare
from llavakit.train.snapshot import Snapshots, load_snapshot
from llavakit.train.stage import Recipe, Stage
from llavakit.train.step import train_step
from llavakit.train.stop import Stop

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def train(recipe: Recipe, out: str | Path, resume: bool = False) -> Path:
    """Runs every stage of ``recipe`` and returns ``out/model``, a native checkpoint.

    ``out`` gets ``run.json`` (the resolved recipe), ``metrics.jsonl``, ``loss.png``, ``stages/NAME`` (a native
    checkpoint after each stage) and, while it runs, ``snapshots``. With ``resume`` an interrupted run of the same
    recipe goes on from its last snapshot to the weights that it would have had. Under torchrun all processes share the
    work, and ``out`` is a directory that all of them see.

    Raises :class:`BadRequest` when ``out`` holds a run already, or another recipe's; :class:`WorkFailed` when it was
    told to stop (SIGTERM), with a snapshot of where it was.
    """
    out = Path(out)
    with dist.start():
        check_machine(recipe)
        dist.first(lambda: claim(recipe, out, resume))
        return run_stages(recipe, out)


def run_stages(recipe: Recipe, out: Path, clock: Clock = untimed) -> Path:
    """What :func:`train` does in a directory that is claimed; each phase runs within ``clock(its name)``."""
    backbones = recipe.backbones
    if backbones is not None:
        dist.first(lambda: pretrain(backbones, out / "backbones", clock))
    run = Run(recipe, out)
    for number, name in enumerate(recipe.stages):
        if not (out / "stages" / name).exists():
            with clock(name):
                run.stage(number, name)
    dist.first(run.finish)
    return out / "model"


class Run:
    """What the stages of one run share."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        path = out / "metrics.jsonl"
        dist.first(lambda: JsonlLog(path) and None)  # mended, before the other ranks read it
        self.metrics = JsonlLog(path, own=dist.is_main())
        self.device = dist.device()

    def stage(self, number: int, name: str) -> None:
        """Trains one stage from the checkpoint of the one before it (the first from the parts), and saves its own."""
        recipe, stage = self.recipe, self.recipe.stages[name]
        model, codec, give = begin(recipe, number, self.out)
        ranks = mesh(recipe.sharding)
        prepare(model, stage, recipe.seed + number, self.device, give, ranks, DTYPES[recipe.precision])
        mixture = Mixture.of(stage.data, stage.image_first, recipe.seed + number)
        share = (dist.rank(), dist.world_size())
        steps = Steps(
            mixture, codec, stage.batch_size, stage.row_tokens, stage.epochs, recipe.on_bad, stage.augment, share
        )
        model.train()
        optimiser = make_optimiser(model, stage)
        parts = ", ".join(f"{part_name} at {rate:g}" for part_name, rate in stage.train.items())
        log.info(
            f"{name}: {len(mixture):,} samples, {len(steps):,} steps of {stage.batch_size}; trains {parts} "
            f"({count(model, trainable=True):,} of {count(model):,} parameters)"
        )
        directory = self.out / "snapshots"
        with Stop() as stop, Snapshots(directory, name, recipe.keep) as snapshots, workers_alive():
            done, totals = self.recover(name, snapshots, model, optimiser)
            for step in self.loop(name, stage, model, steps, optimiser, done, totals):
                stopping = stop.asked() and step < len(steps)
                if stopping or (step % recipe.snapshot_every == 0 and step < len(steps)):
                    state = {"totals": totals, "metrics": len(self.metrics.records)}
                    snapshots.save(step, model, optimiser, state)
                if stopping:
                    snapshots.wait()
                    dist.fail(WorkFailed(f"told to stop (SIGTERM) after step {step} of {name}; go on with --resume"))
        self.summary(name, totals)
        if stage.lora is not None:
            merge(model)
        checkpoint.save(model, codec, self.out / "stages" / name, self.card() | {"stage": name, "totals": totals})
        dist.first(lambda: shutil.rmtree(self.out / "snapshots", ignore_errors=True))

    def finish(self) -> None:
        """The last stage's checkpoint, at the recipe's full length, as ``model``, and the curve of the losses."""
        last = self.out / "stages" / list(self.recipe.stages)[-1]
        checkpoint.copy(last, self.out / "model", self.recipe.max_length, self.card())
        draw_curve(self.metrics.records, self.out / "loss.png")

    def recover(
        self, name: str, snapshots: Snapshots, model: Llava, optimiser: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Any]]:
        """Steps done of this stage and its totals so far, from the last snapshot; (0, zeros) without one."""
        found = snapshots.latest()
        if found is None:
            earlier = [r for r in self.metrics.records if r["stage"] != name]
            self.metrics.truncate(len(earlier))
            return 0, {"samples": 0, "tokens": 0, "supervised": 0, "cut": 0, "bad": [], "seconds": 0.0}
        path, state = found
        load_snapshot(path, model, optimiser)
        self.metrics.truncate(state["metrics"])
        log.info(f"resumed {name} after step {state['step']}")
        return state["step"], state["totals"]

    def loop(
        self,
        name: str,
        stage: Stage,
        model: Llava,
        steps: Steps,
        optimiser: torch.optim.Optimizer,
        done: int,
        totals: dict[str, Any],
    ) -> Iterator[int]:
        """Yields the number of steps done, after each, with its metrics written."""
        precision, stages = DTYPES[self.recipe.precision], list(self.recipe.stages)
        bar = progress(total=len(steps), desc=name, unit="step")
        bar.update(done)
        clock = time.perf_counter()
        for step in agreed(steps.read(done, self.recipe.workers), steps.codec):
            # Dropout too is a function of the step, or a resumed run would not be the unbroken one.
            torch.manual_seed(hash((self.recipe.seed, stages.index(name), step.number, dist.rank())) % 2**63)
            rates = set_rates(optimiser, schedule(step.number, len(steps), stage.warmup))
            outcome = train_step(model, step, optimiser, stage.clip, precision)
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            for key in ("samples", "tokens", "supervised", "cut"):
                totals[key] += getattr(step, key)
            totals["bad"] += step.bad
            totals["seconds"] += seconds
            for reason in step.bad:
                log.warning(f"skipped: {reason}")
            bar.update()
            bar.set_postfix_str(
                f"loss {outcome.loss:.3f} lr {max(rates.values()):.1e} {step.tokens / seconds:,.0f} tok/s "
                f"{step.samples / seconds:.1f} samples/s"
            )
            if bar.disable and (step.number + 1) % max(1, len(steps) // 10) == 0:
                log.info(metrics_line({name: f"{step.number + 1}/{len(steps)}", "loss": outcome.loss, **rates}))
            self.metrics.append(
                {
                    "stage": name,
                    "step": step.number + 1,
                    "loss": outcome.loss,
                    "grad_norm": outcome.grad_norm,
                    **{f"lr/{key}": rate for key, rate in rates.items()},
                    "samples": step.samples,
                    "tokens": step.tokens,
                    "supervised": step.supervised,
                    "bad": len(step.bad),
                    "seconds": round(seconds, 4),
                }
            )
            yield step.number + 1
        bar.close()

    def summary(self, name: str, totals: dict[str, Any]) -> None:
        rate = totals["tokens"] / max(totals["seconds"], 1e-9)
        log.info(
            f"{name}: {totals['samples']:,} samples, {totals['tokens']:,} tokens ({totals['supervised']:,} supervised) "
            f"in {totals['seconds']:.0f} s, {rate:,.0f} tokens/s; {len(totals['bad'])} bad records skipped, "
            f"{totals['cut']:,} tokens cut"
        )

    def card(self) -> dict[str, Any]:
        """``llavakit.json``: the recipe and where the checkpoint comes from."""
        versions = {"llavakit": __version__} | {package: version(package) for package in ("torch", "transformers")}
        return {"recipe": self.recipe.plain(), "recipe_hash": self.recipe.hash(), "versions": versions}
