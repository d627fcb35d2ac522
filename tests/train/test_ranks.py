"""However many ranks there are, a run gives the same losses and weights, and goes on from another number's snapshot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llavakit.chat.conversation import Conversation, Turn
from llavakit.data.collate import collate
from llavakit.data.ranks import beside, idle
from llavakit.image.anyres import AnyRes
from llavakit.model.encode import encode
from llavakit.train.run import train
from llavakit.train.stage import Recipe
from tests.data.samples import write
from tests.train.test_run import lines


@pytest.fixture(scope="module")
def many(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Of 13 samples in steps of 5, every fourth without a picture: ranks get unlike numbers of rows, or none at all,
    and some rows have pictures on one rank only. All three parts learn, in rows of few samples, clipped."""
    changes: dict[str, Any] = {"row_tokens": 60, "batch_size": 5, "epochs": 1.0, "clip": 0.5}
    data = {"all": {"path": str(write(tmp_path_factory.mktemp("data"), 13))}}
    every = {f"stages.{name}.{key}": value for name in recipe.stages for key, value in changes.items()}
    rates = {"vision_tower": 1e-4, "connector": 3e-3, "language_model": 1e-3}
    every |= {"stages.tune.validation": {"sources": {"apart": data["all"]}, "keep_best": True}}
    return recipe.evolve(every | {"stages.tune.train": rates, "stages.align.data": data, "stages.tune.data": data})


@pytest.fixture(scope="module")
def alone(many: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(many, tmp_path_factory.mktemp("alone") / "run").parent


def launch(folder: Path, ranks: int, *arguments: str, near: int | None = None) -> subprocess.Popen[str]:
    """Starts ``llavakit train`` on that many ranks, for each of ``arguments`` in turn; ``near``: ranks on a machine."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.train.job", str(folder), str(ranks), str(near or ranks), *arguments]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], folder: Path) -> list[tuple[int, str]]:
    """Exit code of each rank, and what it said."""
    codes = process.communicate(timeout=300)[0].split()[-len(list(folder.glob("[0-9]*"))) :]
    return [(int(code), (folder / str(rank)).read_text()) for rank, code in enumerate(codes)]


def same(one: Path, other: Path, rates: float = 1e-3) -> None:
    """Same losses of every stage to 1e-6, and the same weights.

    Adam divides a gradient by its own size, so the rounding of one that is nearly zero moves a weight by a share of
    the rate: weights agree to 1e-7 on average, and each to 1e-5, far below one step.
    """
    for mine, theirs in zip(lines(one), lines(other), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert mine.get("valid/loss/apart", 0.0) == pytest.approx(theirs.get("valid/loss/apart", 0.0), rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
        assert [mine[key] for key in ("samples", "tokens", "supervised")] == [
            theirs[key] for key in ("samples", "tokens", "supervised")
        ]
    for file in one.rglob("*.safetensors"):
        weights = load_file(other / file.relative_to(one))
        for name, value in load_file(file).items():
            # The gradient of a key's bias is zero but for rounding, and Adam makes steps of the full rate of that.
            most, usual = (rates, rates) if name.endswith("k_proj.bias") else (1e-5, 1e-7)
            apart = (value - weights[name]).abs()
            assert apart.max() <= most and apart.mean() <= usual, (file, name, apart.max(), apart.mean())


def test_two_ranks_give_what_one_gives(many: Recipe, alone: Path, tmp_path: Path) -> None:
    adapters: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.0}
    tune = many.stages["tune"].evolve(epochs=1.0, lora=adapters | {"base": "nf4"})
    tiles = {
        "stages.tune.validation.keep_best": False,
        "stages.tune.image": {"grids": "hd", "global_view": "pad"},
        "stages.align.epochs": 0.5,
    }
    recipes = {
        "plain": many,
        "quantised": many.evolve(stages={"tune": tune.evolve({"validation.keep_best": False})}),
        "compiled": many.evolve({"stages.tune.compile": True, "stages.align.epochs": 0.5}),
        "tiled": many.evolve({"stages.tune.lora": adapters, "stages.tune.epochs": 1.0, **tiles}),
    }
    for name, recipe in recipes.items():
        recipe.save(tmp_path / f"{name}.json")
    ranks = tmp_path / "ranks"
    done = ended(launch(ranks, 2, *(f"{tmp_path / name}.json --out {tmp_path / name}" for name in recipes)), ranks)
    assert [code for code, _ in done] == [0, 0], done
    said = [line for line in done[1][1].splitlines() if not line.startswith("[rank1]:W")]  # torch's own warnings
    assert not said, "only the first rank speaks"
    same(alone, tmp_path / "plain")
    for name in ("quantised", "compiled", "tiled"):
        same(train(recipes[name], tmp_path / f"{name}-alone").parent, tmp_path / name)


def test_four_ranks_on_two_machines_stop_when_told_and_one_goes_on(many: Recipe, alone: Path, tmp_path: Path) -> None:
    recipe = many.evolve(sharding="node", snapshot_every=100)
    recipe.save(tmp_path / "run.json")
    out = tmp_path / "run"
    ranks = tmp_path / "ranks"
    process = launch(ranks, 4, f"{tmp_path / 'run.json'} --out {out}", near=2)
    while not (out / "metrics.jsonl").exists() or len(lines(out)) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(int((ranks / "pids").read_text().split()[2]), signal.SIGTERM)
    done = ended(process, ranks)
    assert [code for code, _ in done] == [1, 1, 1, 1]
    assert "told to stop (SIGTERM) after step" in done[0][1] and "--resume" in done[0][1]
    assert all(not errors for _, errors in done[1:])
    assert [path.name for path in out.rglob(".*.tmp")] == []
    train(recipe, out, resume=True)
    same(alone, out)


def test_a_bad_record_ends_all_ranks_with_one_line(many: Recipe, tmp_path: Path) -> None:
    data = Path(many.stages["align"].data["all"].path)
    (tmp_path / "data.json").write_text(data.read_text().replace('"2.png"', '"lost.png"'))
    source = {"all": {"path": str(tmp_path / "data.json"), "images": str(data.parent)}}
    many.evolve({"stages.align.data": source}).save(tmp_path / "run.json")
    ranks = tmp_path / "ranks"
    done = ended(launch(ranks, 2, f"{tmp_path / 'run.json'} --out {tmp_path / 'run'}"), ranks)
    assert [code for code, _ in done] == [1, 1]
    errors = [line for _, said in done for line in said.splitlines() if "error" in line]
    assert len(errors) == 1 and "lost.png: no such file" in errors[0]


@pytest.mark.parametrize("image", ["pad", AnyRes(grids="llava16", global_view="squash")])
def test_idle_sequences_add_nothing_and_reach_every_weight(toy: Any, image: Any) -> None:
    model, codec = toy
    codec = codec.seeing(image)
    if codec.grids is not None:
        model.add_newline()
    model.train()
    talk = Conversation((Turn("user", "Say yes."), Turn("assistant", "Yes")))
    row = collate([encode(talk, codec)], codec.image_id)
    alone = model(row)
    both = model(beside(row, idle(codec, picture=True)))
    assert both.item() == pytest.approx(alone.item(), rel=1e-6)
    both.backward()
    gradients = {name: p.grad for name, p in model.multi_modal_projector.named_parameters()}
    assert all(g is not None and not g.any() for g in gradients.values()), gradients
    assert model(idle(codec, picture=False)).item() == 0.0
