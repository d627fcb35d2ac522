"""Every recipe that ships: resolved, validated, planned at its own size, and trained from end to end at toy width."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.engine.load import load
from llavakit.engine.sample import Decoding
from llavakit.recipes import RECIPES, resolve
from llavakit.train.plan import plan
from llavakit.train.plan_text import text
from llavakit.train.run import train
from llavakit.train.stage import Recipe, Stage
from tests.data.samples import write
from tests.tiny import save_language, save_tower

NAMES = [name.replace("_", "-") for name in RECIPES.names() if name != "demo"]
VICUNA_7B, VICUNA_13B, QWEN3_8B = 6_738_415_616, 13_015_864_320, 8_190_735_360
CLIP_336, CLIP_224, SIGLIP2 = 303_507_456, 303_179_776, 428_225_600
LORA_128 = 319_815_680

# Published sizes of tower, connector and language model; most tokens of a picture; steps of both stages.
PUBLISHED: dict[str, tuple[int, int, int, int, int, int]] = {
    "llava15-7b": (CLIP_336, 20_979_712, VICUNA_7B, 576, 2181, 5198),
    "llava15-13b": (CLIP_336, 31_467_520, VICUNA_13B, 576, 2181, 5198),
    "llava15-hd-13b": (CLIP_224, 31_467_520, VICUNA_13B, 1888, 2181, 5198),
    "llava-v1-7b": (CLIP_224, 4_198_400, VICUNA_7B, 256, 4652, 14_787),
    "llava15-7b-lora": (CLIP_336, 20_979_712, VICUNA_7B, 576, 2181, 5198),
    "llava15-7b-qlora": (CLIP_336, 20_979_712, VICUNA_7B, 576, 2181, 5198),
    "llava16-7b": (CLIP_336, 20_979_712, VICUNA_7B, 2928, 2181, 5198),
    "scienceqa-13b": (CLIP_224, 5_248_000, VICUNA_13B, 256, 4652, 1200),
    "cluster-13b": (CLIP_336, 31_467_520, VICUNA_13B, 576, 273, 975),
    "qwen3-siglip2": (SIGLIP2, 21_504_000, QWEN3_8B, 729, 2181, 5198),
}


@pytest.mark.parametrize("name", NAMES)
def test_sizes_without_weights_are_the_published_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(resolve(name))
    tower, connector, language, tokens, align, tune = PUBLISHED[name]
    assert found.sizes == {"vision_tower": tower, "connector": connector, "language_model": language}
    assert (found.image_tokens, [stage.steps for stage in found.stages]) == (tokens, [align, tune])
    trained = LORA_128 if "lora" in name else language
    row_end = {"llava15-hd-13b": 5120, "llava16-7b": 4096}.get(name, 0)  # learns beside the connector
    of_tower = sum(found.stages[1].trainable.values()) - connector - row_end - trained
    assert of_tower in (0, tower - 12_596_224), "all but its unused last layer"
    assert f"{connector:,}" in text(found)


def test_a_name_is_the_file_s() -> None:
    for name in NAMES:
        assert resolve(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_trained_at_toy_width(name: str, tmp_path: Path) -> None:
    """Both stages on four records; the checkpoint is loaded and answers about a picture."""
    recipe = toy(resolve(name), tmp_path)
    model = train(recipe, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) >= 4 and all(0 < loss < 50 for loss in losses)
    config = json.loads((model / "config.json").read_text())
    assert config["model_type"] == ("llava_next" if recipe.tiled else "llava")
    picture = Image.new("RGB", (90, 40), (220, 30, 30))
    assert isinstance(load(model, device="cpu").ask(picture, "What?", Decoding(max_new_tokens=3)), str)


def toy(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with tiny parts of its families and four records for data; all else is its own."""
    vision = "siglip" if "siglip" in str(recipe.model.vision) else "clip"
    language = "qwen3" if "Qwen3" in str(recipe.model.language) else "llama"
    changes: dict[str, Any] = {
        "model.vision": str(save_tower(vision, folder / "vision")),
        "model.language": str(save_language(language, folder / "language", bos=language == "llama")),
        "workers": 0,
    }
    data = {"all": {"path": str(write(folder, 4))}}
    for name, stage in recipe.stages.items():
        changes |= {f"stages.{name}.data": data, f"stages.{name}.batch_size": 2}
        changes |= {f"stages.{name}.warmup": min(1.0, stage.warmup)}  # no more steps than there are
    return recipe.evolve(changes)


def stages(name: str) -> list[Stage]:
    return list(resolve(name).stages.values())


def test_what_the_recipes_differ_in() -> None:
    align, tune = stages("llava-v1-7b")
    assert align.train == {"connector": 2e-3} and tune.epochs == 3 and tune.image_first == "random"
    assert resolve("llava-v1-7b").model.connector == "linear"
    _, tune = stages("llava15-7b-lora")
    assert tune.train == {"connector": 2e-5, "language_model": 2e-4}
    assert tune.lora is not None and (tune.lora.rank, tune.lora.alpha, tune.lora.base) == (128, 256, "full")
    _, tune = stages("llava15-7b-qlora")
    assert tune.lora is not None and tune.lora.base == "nf4"
    _, tune = stages("llava16-7b")
    assert tune.train == {"connector": 2e-5, "language_model": 2e-5, "vision_tower": 2e-6}
    assert stages("scienceqa-13b")[1].epochs == 12
    for stage, rate, epochs in zip(stages("cluster-13b"), (2e-5, 1e-5), (1, 3), strict=True):
        assert (stage.betas, stage.weight_decay, stage.warmup, stage.clip) == ((0.9, 0.95), 0.1, 1000, 1.0)
        assert (stage.batch_size, stage.epochs, stage.augment) == (2048, epochs, True)
        assert set(stage.train.values()) == {rate}


def test_a_warm_up_longer_than_its_stage_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = text(plan(resolve("cluster-13b")))
    assert (
        "align: the warm-up of 1,000 steps is longer than the stage, whose rate would end at 27% of its peak" in shown
    )
