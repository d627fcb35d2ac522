"""Validation while training: the loss of what was held out, by source, and any benchmark, asked of the model as it is.

It changes nothing: no dropout, no gradient, no random number is drawn, so a run that looks ends in the weights of one
that does not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from llavakit.base.dist import is_main, rank, world_size
from llavakit.base.errors import BadRequest
from llavakit.base.log import log
from llavakit.data.loader import OnBad, Steps
from llavakit.data.mixture import Mixture, open_source
from llavakit.data.ranks import agreed
from llavakit.data.source import Source
from llavakit.engine.engine import Engine
from llavakit.engine.sample import Decoding
from llavakit.eval.benchmark import Benchmark, Question
from llavakit.eval.order import by_image
from llavakit.eval.run import BENCHMARKS, evaluate
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.train.ledger import Ledger
from llavakit.train.stage import Stage
from llavakit.train.validation_spec import Bench

PREFIX = "valid/"


class Validator:
    """What is measured of one stage's model, and when. Raises :class:`BadRequest` for files that are not there."""

    def __init__(
        self, stage: Stage, codec: Codec, precision: torch.dtype, workers: int = 0, on_bad: OnBad = "stop"
    ) -> None:
        self.stage = stage
        self.codec = codec
        self.precision = precision
        self.workers = workers
        sources = held_out(stage)
        self.steps = None
        if sources:
            mixture = Mixture(sources, dict.fromkeys(sources, 1.0))
            share = (rank(), world_size())
            self.steps = Steps(mixture, codec, stage.batch_size, stage.row_tokens, 1.0, on_bad, share=share)
        self.bench = {name: questions_of(name, bench) for name, bench in stage.validation.bench.items()}

    def due(self, step: int, total: int) -> bool:
        """Whether the model is measured after ``step`` steps of ``total``: at the end, and as often as was asked."""
        every = self.stage.eval_every
        return self.stage.validates and (step == total or (every is not None and step % every == 0))

    def __call__(self, model: Llava) -> dict[str, float]:
        """``valid/loss`` (over all tokens), ``valid/loss/SOURCE``, ``valid/BENCHMARK`` in its own unit, and the
        seconds that it took. Training mode is given back."""
        start, training = time.perf_counter(), model.training
        model.eval()
        found = self._losses(model) if self.steps is not None else {}
        for name, (benchmark, questions) in self.bench.items():
            found[PREFIX + name] = self._score(model, name, benchmark, questions)
        model.train(training)
        return {**found, f"{PREFIX}seconds": round(time.perf_counter() - start, 3)}

    @torch.no_grad()
    def _losses(self, model: Llava) -> dict[str, float]:
        assert self.steps is not None
        ledger, bad = Ledger(), 0
        for step in agreed(self.steps.read(0, self.workers), self.codec):
            bad += len(step.bad)
            for row in step.rows:
                batch, losses = row.to(model.device), list[torch.Tensor]()
                with torch.autocast(model.device.type, self.precision, enabled=self.precision != torch.float32):
                    model(batch, by_token=losses.append)
                ledger.add(batch, losses)
        if bad and is_main():
            log.warning(f"validation left out {bad} bad records of what is held out")
        sums = ledger.by_source(self.steps.mixture.names)
        total = sum(one.loss for one in sums.values()) / max(1, sum(one.tokens for one in sums.values()))
        return {f"{PREFIX}loss": total} | {f"{PREFIX}loss/{name}": one.mean for name, one in sums.items()}

    def _score(self, model: Llava, name: str, benchmark: Benchmark, questions: Sequence[Question]) -> float:
        # A new engine each time: it reads the weights when it is made.
        engine = Engine(model, self.codec)
        how = Decoding(max_new_tokens=self.stage.validation.bench[name].max_new_tokens)
        return evaluate(benchmark, questions, lambda conversations: engine.answer(conversations, how)).score


class Best:
    """Which validation of a stage is the best so far. ``records``: the metrics that it has behind it."""

    def __init__(self, key: str, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.key = key
        self.value = math.inf
        for record in records:
            self.better(record)

    def value_of(self, record: Mapping[str, Any]) -> float | None:
        """The lower the better, whatever is measured; None where nothing was."""
        value = record.get(PREFIX + self.key)
        if value is None or not math.isfinite(value):
            return None
        return float(value) if self.key == "loss" else -float(value)

    def better(self, record: Mapping[str, Any]) -> bool:
        """Whether ``record`` has a better value than all before it, and from now on is the best."""
        value = self.value_of(record)
        if value is None or not value < self.value:
            return False
        self.value = value
        return True


def held_out(stage: Stage) -> dict[str, Source]:
    """The sources that validate: what the training sources hold out, under their names, and those of the stage's own
    validation."""
    apart = {
        name: open_source(name, spec, stage.image_first, held_out=True)
        for name, spec in stage.data.items()
        if spec.holdout
    }
    own = {name: open_source(name, spec, stage.image_first) for name, spec in stage.validation.sources.items()}
    return apart | own


def questions_of(name: str, bench: Bench) -> tuple[Benchmark, list[Question]]:
    """A benchmark and what is asked of it. Raises :class:`BadRequest` for one that training cannot run."""
    if BENCHMARKS[name].judged:
        raise BadRequest(f"validation.bench.{name}: needs a judge; run llavakit eval and judge on the checkpoint")
    if world_size() > 1:
        raise BadRequest(
            f"validation.bench.{name}: benchmarks are asked by one process, and here are {world_size()}; hold records "
            "out instead, and run llavakit eval on the checkpoint"
        )
    benchmark = replace(BENCHMARKS[name], protocol=bench.protocol or BENCHMARKS[name].protocol)
    return benchmark, some(benchmark.load(bench.data, bench.images), bench.limit)


def some(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """Whole pictures' questions, spread evenly over all, until there are ``limit``; in their order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    groups = by_image(questions)
    step, chosen = max(1, len(questions) // limit), set[str]()
    for first in range(step):
        for group in groups[first::step]:
            if len(chosen) >= limit:
                return [question for question in questions if question.id in chosen]
            chosen.update(question.id for question in group)
    return list(questions)


def announce(name: str, found: Mapping[str, float]) -> None:
    """One line of what a validation gave."""
    if is_main():
        shown = "  ".join(f"{key.removeprefix(PREFIX)} {value:.4g}" for key, value in found.items())
        log.info(f"{name} validation: {shown}")
