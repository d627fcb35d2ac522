"""The run: stages in order, each a short loop over steps; metrics, snapshots, native checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llavakit import __version__
from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, read_json, sweep, write_json
from llavakit.base.log import Clock, log, metrics_line, progress, untimed
from llavakit.chat.template import get_template
from llavakit.data.loader import Steps
from llavakit.data.mixture import Mixture
from llavakit.model import checkpoint
from llavakit.model.adapters import merge
from llavakit.model.build import ModelSpec, build
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.parts import count
from llavakit.train.backbones import connect, pretrain
from llavakit.train.curve import draw_curve
from llavakit.train.optim import check, make_optimiser, prepare, set_rates
from llavakit.train.schedule import schedule
from llavakit.train.snapshot import latest_snapshot, load_snapshot, save_snapshot
from llavakit.train.stage import Recipe, Stage
from llavakit.train.step import train_step

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def train(recipe: Recipe, out: str | Path, resume: bool = False) -> Path:
    """Runs every stage of ``recipe`` and returns ``out/model``, a native checkpoint.

    ``out`` gets ``run.json`` (the resolved recipe), ``metrics.jsonl``, ``loss.png``, ``stages/NAME`` (a native
    checkpoint after each stage) and, while it runs, ``snapshots``. With ``resume`` an interrupted run of the same
    recipe goes on from its last snapshot to the weights that it would have had.

    Raises :class:`BadRequest` when ``out`` holds a run already, or another recipe's.
    """
    out = Path(out)
    claim(recipe, out, resume)
    return run_stages(recipe, out)


def run_stages(recipe: Recipe, out: Path, clock: Clock = untimed) -> Path:
    """What :func:`train` does in a directory that is claimed; each phase runs within ``clock(its name)``."""
    if recipe.backbones is not None:
        pretrain(recipe.backbones, out / "backbones", clock)
    run = Run(recipe, out)
    for number, name in enumerate(recipe.stages):
        if not (out / "stages" / name).exists():
            with clock(name):
                run.stage(number, name)
    last = list(recipe.stages)[-1]
    model, codec = checkpoint.load(out / "stages" / last)
    checkpoint.save(model, replace(codec, max_length=recipe.max_length), out / "model", run.card())
    draw_curve(run.metrics.records, out / "loss.png")
    return out / "model"


class Run:
    """What the stages of one run share."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        self.metrics = JsonlLog(out / "metrics.jsonl")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def stage(self, number: int, name: str) -> None:
        """Trains one stage from the checkpoint of the one before it (the first from the parts), and saves its own."""
        stage = self.recipe.stages[name]
        model, codec = self.start(number, stage)
        prepare(model, stage, self.recipe.seed + number, self.device)
        mixture = Mixture.of(stage.data, stage.image_first, self.recipe.seed + number)
        steps = Steps(
            mixture, codec, stage.batch_size, stage.row_tokens, stage.epochs, self.recipe.on_bad, stage.augment
        )
        model.to(self.device).train()
        optimiser = make_optimiser(model, stage)
        done, totals = self.recover(name, model, optimiser)
        parts = ", ".join(f"{part_name} at {rate:g}" for part_name, rate in stage.train.items())
        log.info(
            f"{name}: {len(mixture):,} samples, {len(steps):,} steps of {stage.batch_size}; trains {parts} "
            f"({count(model, trainable=True):,} of {count(model):,} parameters)"
        )
        for row in self.loop(name, stage, model, steps, optimiser, done, totals):
            self.metrics.append(row)
        self.summary(name, totals)
        model.to("cpu") if stage.lora is None else merge(model)
        checkpoint.save(model, codec, self.out / "stages" / name, self.card() | {"stage": name, "totals": totals})
        shutil.rmtree(self.out / "snapshots", ignore_errors=True)

    def start(self, number: int, stage: Stage) -> tuple[Llava, Codec]:
        """The model at the beginning of a stage, with that stage's template and preprocessing."""
        template = get_template(stage.template)
        if number:
            model, codec = checkpoint.load(self.out / "stages" / list(self.recipe.stages)[number - 1])
        else:
            model, tokenizer = build(self.parts(), self.recipe.seed)
            codec = Codec(tokenizer, template, model.square, model.image_tokens)
            self.recipe.check_room(codec.image_tokens)
            for later in self.recipe.stages.values():
                check(model, later)
            if self.recipe.backbones is not None:
                connect(model, self.recipe.backbones, codec)
        codec = replace(codec, template=template, max_length=self.recipe.max_length).seeing(stage.image, stage.decode)
        model.square = codec.square
        if codec.grids is not None and model.image_newline is None:
            model.add_newline(self.recipe.seed)
        return model, codec

    def parts(self) -> ModelSpec:
        """What the model is built from: the recipe's backbones, or those that this run has pretrained."""
        if self.recipe.backbones is None:
            return self.recipe.model
        own = self.out / "backbones"
        return self.recipe.model.evolve(vision=str(own / "clip"), language=str(own / "language"))

    def recover(self, name: str, model: Llava, optimiser: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
        """Steps done of this stage and its totals so far, from the last snapshot; (0, zeros) without one."""
        found = latest_snapshot(self.out / "snapshots", name)
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
    ) -> Iterator[dict[str, Any]]:
        """Yields one metrics record a step."""
        precision, stages = DTYPES[self.recipe.precision], list(self.recipe.stages)
        bar = progress(total=len(steps), desc=name, unit="step")
        bar.update(done)
        clock = time.perf_counter()
        for step in steps.read(done, self.recipe.workers):
            # Dropout too is a function of the step, or a resumed run would not be the unbroken one.
            torch.manual_seed(hash((self.recipe.seed, stages.index(name), step.number)) % 2**63)
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
            yield {
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
            if (step.number + 1) % self.recipe.snapshot_every == 0 and step.number + 1 < len(steps):
                state = {"totals": totals, "metrics": len(self.metrics.records)}
                save_snapshot(self.out / "snapshots", name, step.number + 1, model, optimiser, state)
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


def claim(recipe: Recipe, out: Path, resume: bool = False) -> None:
    """Makes ``out`` this run's own. Raises :class:`BadRequest` when it holds another, or anything else."""
    """Makes ``out`` this run's, or refuses. Clears away what a killed process left half written in a run's folders."""
    if not (out / "run.json").exists():
        if resume:
            raise BadRequest(f"{out} holds no run to resume")
        if out.exists() and any(out.iterdir()):
            raise BadRequest(f"{out} exists and is not a run of llavakit; choose another --out")
        write_json(out / "run.json", recipe.plain())
        return
    if not resume:
        raise BadRequest(f"{out} already holds a run; continue it with --resume or choose another --out")
    before, now = read_json(out / "run.json"), recipe.plain()
    if before != now:
        difference = _first_difference(before, now)
        raise BadRequest(f"{out} holds a run of another recipe ({difference}); it cannot be resumed")
    for folder in (out, out / "stages", out / "snapshots", out / "backbones"):
        sweep(folder)


def _first_difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *now]:
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} was {before!r}, is {now!r}"
