"""The run: stages in order, each a short loop over steps; metrics, snapshots, native checkpoints. One process, or as
many as torchrun starts."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llavakit import __version__
from llavakit.base import dist
from llavakit.base.errors import WorkFailed
from llavakit.base.files import JsonlLog
from llavakit.base.log import Clock, log, untimed
from llavakit.data.loader import Steps, workers_alive
from llavakit.data.mixture import Mixture
from llavakit.data.ranks import agreed
from llavakit.model import checkpoint
from llavakit.model.adapters import merge
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.model.parts import count
from llavakit.train import meter
from llavakit.train.backbones import pretrain
from llavakit.train.begin import begin
from llavakit.train.claim import claim
from llavakit.train.curve import draw_curve
from llavakit.train.fast import arrange
from llavakit.train.guard import Watch
from llavakit.train.meter import Meter
from llavakit.train.optim import make_optimiser, set_rates
from llavakit.train.preflight import preflight
from llavakit.train.profile import Profiler, Window
from llavakit.train.schedule import schedule
from llavakit.train.shard import mesh, prepare
from llavakit.train.sinks import open_sinks
from llavakit.train.snapshot import Snapshots, load_snapshot
from llavakit.train.stage import Recipe, Stage
from llavakit.train.step import train_step
from llavakit.train.stop import Stop
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
    have had. Under torchrun all processes share the work, and ``out`` is a directory that all of them see.

    Raises :class:`BadRequest` when ``out`` holds a run already, or another recipe's, and for what :func:`preflight`
    finds; :class:`WorkFailed` when it was told to stop (SIGTERM), with a snapshot of where it was.
    """
    out = Path(out)
    with dist.start() as device:
        dist.first(lambda: preflight(recipe, device, looking.trackers))
        dist.first(lambda: claim(recipe, out, resume))
        return run_stages(recipe, out, looking=looking)


def run_stages(recipe: Recipe, out: Path, clock: Clock = untimed, looking: Looking = Looking()) -> Path:
    """What :func:`train` does in a directory that is claimed; each phase runs within ``clock(its name)``."""
    backbones = recipe.backbones
    if backbones is not None:
        dist.first(lambda: pretrain(backbones, out / "backbones", clock))
    run = Run(recipe, out, looking)
    for number, name in enumerate(recipe.stages):
        if not (out / "stages" / name).exists():
            with clock(name):
                run.stage(number, name)
    dist.first(run.finish)
    return out / "model"


class Run:
    """What the stages of one run share."""

    def __init__(self, recipe: Recipe, out: Path, looking: Looking) -> None:
        self.recipe = recipe
        self.out = out
        self.looking = looking
        path = out / "metrics.jsonl"
        dist.first(lambda: JsonlLog(path) and None)  # mended, before the other ranks read it
        self.metrics = JsonlLog(path, own=dist.is_main())
        self.device = dist.device()
        self.precision = DTYPES[recipe.precision]
        self.peak = dist.first(lambda: meter.peak_of(self.device, self.precision))

    def stage(self, number: int, name: str) -> None:
        """Trains one stage from the checkpoint of the one before it (the first from the parts), and saves its own."""
        recipe, stage = self.recipe, self.recipe.stages[name]
        model, codec, give = begin(recipe, number, self.out)
        prepare(model, stage, recipe.seed + number, self.device, give, mesh(recipe.sharding), self.precision)
        arrange(model, stage)
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
            for step, value in self.loop(name, stage, model, steps, optimiser, done, totals):
                stopping = stop.asked() and step < len(steps)
                if stopping or (step % recipe.snapshot_every == 0 and step < len(steps)):
                    state = {"totals": totals, "metrics": len(self.metrics.records), "value": value}
                    snapshots.save(step, model, optimiser, state)
                if stopping:
                    snapshots.wait()
                    dist.fail(WorkFailed(f"told to stop (SIGTERM) after step {step} of {name}; go on with --resume"))
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
    ) -> Iterator[tuple[int, float | None]]:
        """Yields the number of steps done, after each, with its record written, and how good the model is then (the
        lower the better; None where it was not measured)."""
        recipe, place = self.recipe, list(self.recipe.stages).index(name)
        validator = Validator(stage, steps.codec, self.precision, recipe.workers, recipe.on_bad)
        sinks = open_sinks(recipe, name, self.out, done, self.looking.trackers)
        shown = Meter(name, model, steps.mixture.names, len(steps), done, totals, self.peak, sinks)
        behind = [record for record in self.metrics.records if record["stage"] == name]
        watch = Watch(recipe.guard, name, [r["loss"] for r in behind if not r.get("skipped")])
        best, profiler = Best(stage.validation.best, behind), Profiler(self.looking.profile, self.out, name)
        for step in agreed(steps.read(done, recipe.workers), steps.codec):
            # Dropout too is a function of the step, or a resumed run would not be the unbroken one.
            torch.manual_seed(hash((recipe.seed, place, step.number, dist.rank())) % 2**63)
            rates = set_rates(optimiser, schedule(step.number, len(steps), stage.warmup))
            with profiler.step(step.number + 1):
                outcome = train_step(model, step, optimiser, stage.clip, self.precision, watch)
            record = shown.record(step, outcome, rates)
            if validator.due(record["step"], len(steps)):
                record |= (found := validator(model))
                announce(f"{name} {record['step']}/{len(steps)}", found)
            if best.better(record) and stage.validation.keep_best:
                self.save_best(name, model, steps.codec, record)
            self.metrics.append(record)
            shown.send(record)
            yield record["step"], best.value_of(record)
        profiler.close()
        shown.close()
        log.info(shown.summary())

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
        # torch's with its build: "+cu130" or "+cpu" may be why a run comes out otherwise.
        versions = {"llavakit": __version__, "torch": torch.__version__, "transformers": version("transformers")}
        return {"recipe": self.recipe.plain(), "recipe_hash": self.recipe.hash(), "versions": versions}
