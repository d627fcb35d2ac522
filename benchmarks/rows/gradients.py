"""Gradients of a training step, however it is cut in rows and shared by ranks, against one sample at a time.

``python -m benchmarks.rows.gradients FOLDER`` is the step on two ranks; the first saves what they have found.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.rows import backbones, relative, row, scratch
from llavakit.base import dist
from llavakit.data.collate import collate
from llavakit.data.loader import Steps
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.data.ranks import agreed
from llavakit.model.encode import Example, encode
from llavakit.model.llava import Llava
from llavakit.model.shards import whole
from llavakit.train.optim import make_optimiser, set_rates
from llavakit.train.shard import mesh, prepare
from llavakit.train.stage import Stage
from llavakit.train.step import train_step
from tests import toys
from tests.data.samples import write
from tests.train.job import fork

Gradients = dict[str, torch.Tensor]
SAMPLES = 13
"""An odd number, some without a picture: two ranks get unlike shares."""
RATES = {"vision_tower": 1.0, "connector": 1.0, "language_model": 1.0}


def gradients_of(model: Llava, rows: list[list[Example]], image_id: int) -> Gradients:
    """Of the sum over ``rows``; with the loss itself, under ``""``."""
    model.zero_grad()
    total = torch.zeros(())
    for examples in rows:
        loss = model(collate(examples, image_id))
        loss.backward()
        total += loss.detach()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {"": total} | found


def apart(found: Gradients, alone: Gradients) -> float:
    """The largest relative difference of any gradient, or of the loss."""
    assert found.keys() == alone.keys()
    # Softmax does not see a bias of the keys: what there is of its gradient is rounding.
    return max(relative(found[name], alone[name]) for name in alone if not name.endswith("k_proj.bias"))


@functools.cache
def folder() -> Path:
    """Holds ``data.json``, its pictures, and the parts of the model (a link)."""
    place = scratch() / "gradients"
    place.mkdir()
    write(place, SAMPLES)
    (place / "backbones").symlink_to(backbones())
    return place


def mixture(place: Path) -> Mixture:
    return Mixture.of({"all": SourceSpec(path=str(place / "data.json"))}, image_first=True)


@functools.cache
def alone() -> Gradients:
    """Of the mean over the supervised tokens, one sample after another, by nothing of the training loop."""
    model, codec = toys.build_toy(folder() / "backbones")
    source = mixture(folder()).sources["all"]
    examples = [encode(source[i], codec) for i in range(SAMPLES)]
    found = gradients_of(model, [[example] for example in examples], codec.image_id)
    supervised = sum(example.supervised for example in examples)
    return {name: value / supervised for name, value in found.items()}


def step(place: Path, row_tokens: int, rows: int | None = None) -> Gradients:
    """Of the step that training makes of all samples, of which this process's share is ``rows`` rows. No weight
    moves."""
    model, codec = toys.build_toy(place / "backbones")
    stage = Stage(data={}, template="vicuna_v1", train=RATES, batch_size=SAMPLES)
    prepare(model, stage, over=mesh("all"))
    share = (dist.rank(), dist.world_size())
    steps = Steps(mixture(place), codec, stage.batch_size, row_tokens, 1, "stop", share=share)
    work = next(agreed(steps.read(), codec))
    assert rows is None or len(work.rows) == rows
    optimiser = make_optimiser(model.train(), stage)
    set_rates(optimiser, 0.0)
    loss = train_step(model, work, optimiser, None, torch.float32).loss
    found = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return {"": torch.tensor(loss)} | found


def on_two_ranks(place: Path) -> None:
    found = step(place, 400)
    if dist.is_main():
        save_file(found, place / "found.safetensors")


@row("gradients, steps of 1, 2 and 4 rows", against="one sample at a time, relative", bound=1e-5)
def accumulated() -> float:
    cuts = ((100_000, 1), (1200, 2), (700, 4))
    return max(apart(step(folder(), *cut), alone()) for cut in cuts)


@row("gradients, steps of 2 ranks", against="one sample at a time, relative", bound=1e-5)
def ranks() -> float:
    # A process of its own, which has not computed and may fork.
    subprocess.run([sys.executable, "-m", "benchmarks.rows.gradients", folder()], check=True)
    return apart(load_file(folder() / "found.safetensors"), alone())


if __name__ == "__main__":
    at = Path(sys.argv[1])
    if any(fork(at, 2, 2, lambda: on_two_ranks(at))):
        sys.exit((at / "0").read_text() + (at / "1").read_text())
