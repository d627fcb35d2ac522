"""The run: stages in order, each a short loop over steps; metrics, snapshots, native checkpoints."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llavakit import __version__
from llavakit.base.dist import device
from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, read_json, sweep, write_json
from llavakit.base.log import Clock, log, untimed
from llavakit.chat.template import get_template
from llavakit.data.loader import Steps
from llavakit.data.mixture import Mixture
from llavakit.model import checkpoint
from llavakit.model.adapters import merge
from llavakit.model.build import ModelSpec, build
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.parts import count
from llavakit.train import meter
from llavakit.train.backbones import connect, pretrain
from llavakit.train.curve import draw_curve
from llavakit.train.guard import Watch
from llavakit.train.meter import Meter
from llavakit.train.optim import check, make_optimiser, prepare, set_rates
from llavakit.train.preflight import preflight
from llavakit.train.profile import Profiler, Window
from llavakit.train.schedule import schedule
from llavakit.train.sinks import open_sinks
from llavakit.train.snapshot import latest_snapshot, load_snapshot, save_snapshot
from llavakit.train.stage import Recipe, Stage
from llavakit.train.step import train_step
from llavakit.train.validate import Best, Validator, announce

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Looking:
    """What is seen of a run beside its metrics; it changes nothing of what the run gives."""

    trackers: Sequence[str] = ()
    """"wandb", "trackio"."""
    profile: Window | None = None


def train(recipe: Recipe, out: str | Path, resume: bool = False, looking: Looking = Looking()) -> Path:
    """Runs every stage of ``recipe`` and returns ``out/model``, a native checkpoint.

    ``out`` gets ``run.json`` (the resolved recipe), ``metrics.jsonl``, ``tensorboard``, ``loss.png``, ``stages/NAME``
    (a native checkpoint after each stage), ``best/NAME`` where a stage asks for it and, while it runs, ``snapshots``.
    With ``resume`` an interrupted run of the same recipe goes on from its last snapshot to the weights that it would
    have had.

    Raises :class:`BadRequest` when ``out`` holds a run already, or another recipe's, and for what :func:`preflight`
    finds.
    """
    out = Path(out)
    preflight(recipe, device(), looking.trackers)
    claim(recipe, out, resume)
    return run_stages(recipe, out, looking=looking)


def run_stages(recipe: Recipe, out: Path, clock: Clock = untimed, looking: Looking = Looking()) -> Path:
    """What :func:`train` does in a directory that is claimed; each phase runs within ``clock(its name)``."""
    if recipe.backbones is not None:
        pretrain(recipe.backbones, out / "backbones", clock)
    run = Run(recipe, out, looking)
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

    def __init__(self, recipe: Recipe, out: Path, looking: Looking) -> None:
        self.recipe = recipe
        self.out = out
        self.looking = looking
        self.metrics = JsonlLog(out / "metrics.jsonl")
        self.device = device()
        self.precision = DTYPES[recipe.precision]
        self.peak = meter.peak_of(self.device, self.precision)

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
        validator = Validator(stage, codec, self.precision, self.recipe.workers, self.recipe.on_bad)
        self.loop(name, stage, model, steps, optimiser, done, totals, validator)
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
        codec = replace(codec, template=template, max_length=self.recipe.max_length).seeing(stage.image)
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
            return 0, meter.no_totals()
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
        validator: Validator,
    ) -> None:
        """Steps from ``done`` on to the end of the stage, each with its record, and a snapshot now and then."""
        stages, names = list(self.recipe.stages), steps.mixture.names
        sinks = open_sinks(self.recipe, name, self.out, done, self.looking.trackers)
        meter = Meter(name, model, names, len(steps), done, totals, self.peak, sinks)
        behind = [record for record in self.metrics.records if record["stage"] == name]
        watch = Watch(self.recipe.guard, name, [r["loss"] for r in behind if not r.get("skipped")])
        best, profiler = Best(stage.validation.best, behind), Profiler(self.looking.profile, self.out, name)
        for step in steps.read(done, self.recipe.workers):
            # Dropout too is a function of the step, or a resumed run would not be the unbroken one.
            torch.manual_seed(hash((self.recipe.seed, stages.index(name), step.number)) % 2**63)
            rates = set_rates(optimiser, schedule(step.number, len(steps), stage.warmup))
            with profiler.step(step.number + 1):
                outcome = train_step(model, step, optimiser, stage.clip, self.precision, watch)
            record = meter.record(step, outcome, rates)
            if validator.due(record["step"], len(steps)):
                record |= (found := validator(model))
                announce(f"{name} {record['step']}/{len(steps)}", found)
            if best.better(record) and stage.validation.keep_best:
                self.save_best(name, model, validator.codec, record)
            self.metrics.append(record)
            meter.send(record)
            if record["step"] % self.recipe.snapshot_every == 0 and record["step"] < len(steps):
                state = {"totals": totals, "metrics": len(self.metrics.records), "value": best.value_of(record)}
                save_snapshot(self.out / "snapshots", name, record["step"], model, optimiser, state)
        profiler.close()
        meter.close()
        log.info(meter.summary())

    def save_best(self, name: str, model: Llava, codec: Codec, record: dict[str, Any]) -> None:
        """The weights of now as ``best/NAME``."""
        if self.recipe.stages[name].lora is not None:
            model = copy.deepcopy(model)
            merge(model)
        measured = {key: value for key, value in record.items() if key.startswith("valid/")}
        card = self.card() | {"stage": name, "step": record["step"], "measured": measured}
        checkpoint.save(model, codec, self.out / "best" / name, card)

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
