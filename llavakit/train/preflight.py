"""What would stop a run in the middle, found before any work: in the last stage as in the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from llavakit.base.dist import world_size
from llavakit.base.errors import BadRequest
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.data.shards import is_shards
from llavakit.train import sinks
from llavakit.train.schedule import warmup_steps
from llavakit.train.stage import Recipe, Stage
from llavakit.train.validate import questions_of


def preflight(recipe: Recipe, device: torch.device, trackers: Sequence[str] = ()) -> None:
    """Raises :class:`BadRequest` for a precision that ``device`` lacks, a file that is not there, a warm-up that is
    longer than its stage, a benchmark that cannot be asked, a tracker that is not installed, and what this number of
    processes cannot do."""
    sinks.require(trackers)
    if recipe.precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise BadRequest(f"precision: {torch.cuda.get_device_name(device)} has no bfloat16; set precision=float32")
    for name, stage in recipe.stages.items():
        check_ranks(name, stage, world_size())
        for key, sources in (("data", stage.data), ("validation.sources", stage.validation.sources)):
            for source, spec in sources.items():
                _check_file(f"stages.{name}.{key}.{source}", spec)
    for name, stage in recipe.stages.items():
        # Of a share of the steps there are never too many, and large files are not read for nothing.
        if stage.warmup >= 1:
            check_warmup(name, stage, len(Mixture.of(stage.data, stage.image_first, recipe.seed)))
        for bench, asked in stage.validation.bench.items():
            questions_of(bench, asked)


def check_ranks(name: str, stage: Stage, ranks: int) -> None:
    """Raises :class:`BadRequest` for what one process can do and ``ranks`` cannot."""
    if ranks == 1:
        return
    if stage.optimiser == "muon":
        raise BadRequest(
            f"stages.{name}.optimiser: muon works on whole matrices, and {ranks} processes have pieces; choose adamw, "
            "or one process"
        )
    if stage.optimiser == "adamw8bit":
        raise BadRequest(
            f"stages.{name}.optimiser: adamw8bit is for one process, and here are {ranks} that share the model; choose "
            "adamw"
        )
    if stage.features is not None:
        # A rank that found its features would not join the others in gathering the tower.
        raise BadRequest(
            f"stages.{name}.features: they are kept by a run of one process, and here are {ranks}; leave it out"
        )
    if stage.validation.keep_best and stage.lora is not None:
        raise BadRequest(
            f"stages.{name}.validation.keep_best: adapters are merged for it, which {ranks} processes cannot do while "
            "they train; leave it out, or use one process"
        )


def check_warmup(name: str, stage: Stage, samples: int) -> None:
    """Raises :class:`BadRequest` where a stage of ``samples`` ends before its rate has risen."""
    steps = stage.steps(samples)
    if (rising := warmup_steps(steps, stage.warmup)) > steps:
        raise BadRequest(
            f"stages.{name}.warmup: {rising:,} steps of warm-up, and the stage has {steps:,}: its rate would end at "
            f"{steps / rising:.0%} of the peak; give a share of the steps, as stages.{name}.warmup=0.03"
        )


def _check_file(where: str, spec: SourceSpec) -> None:
    if not (is_shards(spec.path) or Path(spec.path).is_file()):
        raise BadRequest(f"{where}: no file at {spec.path}; put it there or set {where}.path")
