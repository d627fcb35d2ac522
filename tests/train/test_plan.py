"""Recipes by name and by file, and what they amount to before a single weight is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llavakit.base.errors import BadRequest
from llavakit.recipes import resolve
from llavakit.train.plan import plan
from llavakit.train.plan_text import text
from llavakit.train.stage import Recipe


def test_the_published_recipe_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = resolve("llava15-7b")
    shown = text(plan(recipe))
    for number in ("6,738,415,616", "2,181", "5,198", "558,128 (published)", "665,298 (published)"):
        assert number in shown
    assert "576 tokens per image, context 2048" in shown
    align, tune = recipe.stages.values()
    assert (align.template, align.image, align.train) == ("plain", "crop", {"connector": 1e-3})
    assert (tune.template, tune.image, tune.train) == ("vicuna_v1", "pad", {"connector": 2e-5, "language_model": 2e-5})


def test_a_plan_counts_the_files_that_are_there(recipe: Recipe) -> None:
    stages = {stage.name: stage for stage in plan(recipe).stages}
    assert (stages["align"].samples, stages["align"].steps, stages["align"].published) == (12, 12, False)
    assert stages["tune"].steps == 9
    gone = recipe.evolve({"stages.align.data.all.path": "/nowhere/data.json"})
    with pytest.raises(BadRequest, match=r"/nowhere/data\.json"):
        plan(gone)


def test_overrides_are_validated() -> None:
    assert resolve("llava15-7b", ["stages.tune.train.connector=1e-5"]).stages["tune"].train["connector"] == 1e-5
    with pytest.raises(BadRequest, match=r"stages\.tune\.epoch: unknown key \(did you mean 'epochs'\?\)"):
        resolve("llava15-7b", ["stages.tune.epoch=2"])
    with pytest.raises(BadRequest, match=r"stages\.tune\.batch_size: .*greater than 0"):
        resolve("llava15-7b", ["stages.tune.batch_size=0"])
    with pytest.raises(BadRequest, match="did you mean 'vicuna_v1'"):
        resolve("llava15-7b", ["stages.tune.template=vicuna"])
    with pytest.raises(BadRequest, match=r"no recipe 'llava15-7c' \(did you mean 'llava15_7b'"):
        resolve("llava15-7c")


def test_a_file_is_the_same_recipe(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe.plain(), sort_keys=False))
    assert resolve(str(path)) == recipe and resolve(str(path)).hash() == recipe.hash()
    recipe.save(tmp_path / "run.json")
    assert resolve(str(tmp_path / "run.json"), ["seed=7"]) == recipe.evolve(seed=7)


def test_a_recipe_says_what_its_model_is_made_of(recipe: Recipe) -> None:
    with pytest.raises(BadRequest, match=r"model\.vision and model\.language are required"):
        recipe.evolve({"model.vision": None})
    with pytest.raises(BadRequest, match="choose one"):
        recipe.evolve(backbones={"captions": {"path": "a.json"}})
