"""Models that see tiles: saved as transformers' ``llava_next``, loaded there and here, refused where it has no form."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.rows.pictures import noise
from llavakit.base.errors import BadRecord, BadRequest
from llavakit.chat.conversation import ImageRef, question
from llavakit.chat.labels import IGNORE
from llavakit.image.anyres import GRIDS, AnyRes, best_grid
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import encode, pictures
from tests.toys import build_toy

from .plain import Asked, noise_file, our_answers, their_answers

HD = AnyRes(grids=GRIDS["hd"], global_view="pad")
HD_SQUASHED = AnyRes(grids=GRIDS["hd"])
LLAVA16 = AnyRes(grids=GRIDS["llava16"])


def tiled(backbones: Path, image: AnyRes) -> tuple[Any, Any]:
    model, codec = build_toy(backbones)
    model.add_newline(3)
    codec = codec.seeing(image)
    model.square = codec.square
    return model.eval(), codec


@pytest.fixture(scope="module")
def saved(backbones: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("tiled")
    for name, image in (("hd", HD), ("squashed", HD_SQUASHED), ("llava16", LLAVA16)):
        checkpoints.save(*tiled(backbones, image), out / name)
    return {path.name: path for path in out.iterdir()}


def test_greedy_answers_are_token_identical_in_plain_transformers(saved: dict[str, Path], tmp_path: Path) -> None:
    """The padded view, which transformers cannot make, with pictures that are square: there it is the same."""
    asked = []
    for number in range(60):
        name = ("llava16", "squashed", "hd")[number % 3]
        sizes = [(20 + 3 * number, 130 - 2 * number), (9 * number + 1, 40)][: 1 + number % 2]
        if name == "hd":
            sizes = [(width, width) for width, _ in sizes]
        if number % 10 == 9:
            sizes = []
        images = [noise_file(tmp_path / f"{number}-{i}.png", *size, seed=number) for i, size in enumerate(sizes)]
        asked.append(Asked(saved[name], f"What is in picture {number}? " + "Yes no. " * (number % 7), images))
    ours = our_answers(asked)
    assert ours == their_answers(asked, tmp_path)
    assert len({tuple(answer) for answer in ours}) > 10, "the toy must not say the same thing to everything"


@pytest.mark.parametrize("name", ["hd", "squashed", "llava16"])
def test_round_trip_is_bit_equal(saved: dict[str, Path], tmp_path: Path, name: str) -> None:
    model, codec = checkpoints.load(saved[name])
    image = {"hd": HD, "squashed": HD_SQUASHED, "llava16": LLAVA16}[name]
    assert codec.grids == image.grids and codec.square.mode == image.global_view and codec.square == model.square
    checkpoints.save(model, codec, tmp_path / "again")
    again, _ = checkpoints.load(tmp_path / "again")
    before, after = checkpoints.native_state(model), checkpoints.native_state(again)
    assert before.keys() == after.keys() and "image_newline" in before
    assert all(torch.equal(before[key], after[key]) for key in before)
    for file in ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        assert (saved[name] / file).read_text() == (tmp_path / "again" / file).read_text(), file


def test_what_is_written_is_llava_next(saved: dict[str, Path]) -> None:
    config = json.loads((saved["llava16"] / "config.json").read_text())
    assert config["model_type"] == "llava_next" and config["architectures"] == ["LlavaNextForConditionalGeneration"]
    assert config["image_grid_pinpoints"] == [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    plain = json.loads((saved["llava16"] / "preprocessor_config.json").read_text())
    assert plain["image_processor_type"] == "LlavaNextImageProcessor" and "global_view" not in plain
    padded = json.loads((saved["hd"] / "preprocessor_config.json").read_text())
    assert padded["global_view"] == "pad" and padded["image_grid_pinpoints"][0] == [28, 28]


def test_a_padded_view_is_saved_with_a_warning(backbones: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, logger="llavakit"):
        logging.getLogger("llavakit").addHandler(caplog.handler)
        checkpoints.save(*tiled(backbones, HD), tmp_path / "hd")
        said = caplog.text
        caplog.clear()
        checkpoints.save(*tiled(backbones, HD_SQUASHED), tmp_path / "squashed")
        logging.getLogger("llavakit").removeHandler(caplog.handler)
    assert "the global view is padded" in said and not caplog.text


def test_each_picture_has_the_tokens_that_its_size_says(backbones: Path) -> None:
    _, codec = tiled(backbones, LLAVA16)
    images = [noise(100, 40), noise(30, 31), noise(20, 90)]
    asked = question("Same?", *map(ImageRef, images))
    example = encode(asked.answer("No"), codec)
    counts = [codec.tokens_of(*image.size) for image in images]
    assert len(set(counts)) > 1 and (example.ids == codec.image_id).sum() == sum(counts) == len(example.take)
    assert codec.tokenizer.decode(example.labels[example.labels != IGNORE]) == " No</s>"
    number = [1 + np.prod(best_grid(*image.size, LLAVA16.grids, 28)) for image in images]
    assert len(example.pixels) == sum(number)
    # The second picture's global view stands where the first picture's tokens end, and counts on from its tiles.
    assert example.take[counts[0]].tolist() == [number[0], 0]
    joined = pictures([encode(question("Hi.").answer("No"), codec), example, example])[1]
    assert joined is not None and joined[sum(counts)].tolist() == [sum(number), 0]
    assert (joined[:, 0] < 0).sum() == 2 * (example.take[:, 0] < 0).sum() > 0
    with pytest.raises(BadRecord, match=rf"takes \d+ tokens \(3 image\(s\) of {min(counts)}, .*{max(counts)}\)"):
        encode(asked, replace(codec, max_length=90), prompt=True)
    first = int(np.nonzero(example.ids == codec.image_id)[0][0])
    with pytest.raises(BadRecord, match="the cut falls into an image"):
        encode(asked.answer("No"), replace(codec, max_length=first + sum(counts)))


def test_what_transformers_cannot_hold_is_refused_before_anything_is_written(backbones: Path, tmp_path: Path) -> None:
    model, codec = tiled(backbones, LLAVA16)
    with pytest.raises(BadRequest, match="has a row end for tiles"):
        checkpoints.save(model, codec.seeing("pad"), tmp_path / "out")
    squares, _ = build_toy(backbones)
    with pytest.raises(BadRequest, match="has no row end"):
        checkpoints.save(squares, codec, tmp_path / "out")
    model.vision_tower.keep_cls = True
    with pytest.raises(BadRequest, match="no place for CLS"):
        checkpoints.save(model, codec, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_damaged_directory_is_named(saved: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved["llava16"], tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "image_grid_pinpoints": [[28, 57]]}))
    with pytest.raises(BadRequest, match=r"image_grid_pinpoints \[28, 57\] are not whole tiles of 28 pixels"):
        checkpoints.load(tmp_path / "model")
    file.write_text(json.dumps(config))
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors.pop("image_newline")
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(BadRequest, match=r"lacks 1 of \d+ tensors, e\.g\. image_newline"):
        checkpoints.load(tmp_path / "model")


def test_a_squashed_square_is_read_from_what_transformers_writes(checkpoint: Path, tmp_path: Path) -> None:
    model, codec = checkpoints.load(checkpoint)
    checkpoints.save(model, codec.seeing("squash"), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())["size"] == {
        "height": 28,
        "width": 28,
    }
    assert checkpoints.load(tmp_path / "model")[1].square.mode == "squash"
