"""Training on tiles: aligned on squares, tuned on tiles, saved as ``llava_next``, resumed, asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.rows.pictures import noise
from llavakit.base.errors import BadRequest
from llavakit.engine.load import load
from llavakit.train.run import train
from llavakit.train.stage import Recipe

from .test_run import lines

HD = {"grids": "hd", "global_view": "pad"}


@pytest.fixture(scope="module")
def tiles(recipe: Recipe) -> Recipe:
    return recipe.evolve({"stages.tune.image": HD, "stages.tune.epochs": 4.0})


@pytest.fixture(scope="module")
def tuned(tiles: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiles, tmp_path_factory.mktemp("tiles") / "run").parent


def test_tuning_on_tiles_learns_and_is_saved_as_llava_next(tuned: Path, tiles: Recipe) -> None:
    losses = [line["loss"] for line in lines(tuned) if line["stage"] == "tune"]
    assert losses[-1] < 0.7 * losses[0], losses  # type: ignore[operator]
    kinds = [json.loads((tuned / path / "config.json").read_text()) for path in ("stages/align", "model")]
    assert [config["model_type"] for config in kinds] == ["llava", "llava_next"]
    learnt = load_file(tuned / "model" / "model.safetensors")["image_newline"]
    assistant = load(tuned / "model", "cpu")
    assert assistant.ask(noise(150, 40), "What colour is it?")
    assistant.engine.model.add_newline(tiles.seed)
    fresh = assistant.engine.model.image_newline
    assert fresh is not None and not torch.equal(learnt, fresh), "the row end trains with the connector"


def test_resumed_on_tiles_it_ends_in_the_same_bytes(
    tuned: Path, tiles: Recipe, tmp_path: Path, break_off: Callable[..., None]
) -> None:
    break_off(tiles, tmp_path / "run", 17)
    assert (tmp_path / "run" / "snapshots" / "tune-0000004").is_dir()
    train(tiles, tmp_path / "run", resume=True)
    name = "model/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tuned / name).read_bytes()


def test_what_cannot_be_is_said_before_anything_is_trained(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="a stage after 'align' sees squares and would lose the row ends"):
        recipe.evolve({"stages.align.image": HD})
    with pytest.raises(BadRequest, match=r"stages\.tune\.image: .* unset model\.keep_cls"):
        recipe.evolve({"stages.tune.image": HD, "model.keep_cls": True})
    with pytest.raises(BadRequest, match=r"stages\.tune\.image.*global_view"):
        recipe.evolve({"stages.tune.image": {"grids": "hd", "global_view": "crop"}})
    short = recipe.evolve({"stages.tune.image": HD, "max_length": 136})
    with pytest.raises(BadRequest, match=r"stages\.tune\.image: a picture takes up to 136 tokens and max_length is 13"):
        train(short, tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


def test_a_plan_counts_the_largest_picture(recipe: Recipe) -> None:
    from llavakit.recipes.llava15_7b import recipe as published
    from llavakit.train.plan import plan
    from llavakit.train.plan_text import text

    tiles = published().evolve({"stages.tune.image": {"grids": "llava16"}})
    with pytest.raises(BadRequest, match="up to 2928 tokens and max_length is 2048"):
        plan(tiles)
    assert "at most 2928 tokens per image, context 4096" in text(plan(tiles.evolve(max_length=4096)))
