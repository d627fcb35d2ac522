"""Pictures: what is drawn is where the truth says, and how much of it can be seen at which size."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llavakit.world.draw import draw
from llavakit.world.sample import sample_scene
from llavakit.world.scene import Background, Inscription, Scene, Thing
from llavakit.world.words import SHAPES

PLAIN = Background("light", "plain", (170, 170, 170), 0.0)


def pixels(scene, side):
    return np.asarray(draw(scene, side), dtype=np.float32)


def alone(thing=None, text=None):
    return Scene(1, 1.0, PLAIN, (thing or Thing(0.5, 0.5, "red", "circle", "large", "solid", 0.25),), text or ())


@pytest.mark.parametrize("index", range(12))
def test_boxes_hold_exactly_what_is_drawn(index):
    scene = sample_scene(2, index, "test")
    full = pixels(scene, 448)
    height, width = full.shape[:2]
    for item in scene.items:
        if len(scene.things) == 1 and isinstance(item, Thing):
            continue  # a scene has at least one thing
        without = replace(
            scene,
            things=tuple(t for t in scene.things if t is not item),
            inscriptions=tuple(t for t in scene.inscriptions if t is not item),
        )
        changed = np.abs(full - pixels(without, 448)).max(-1) > 4
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        drawn = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
        assert drawn == pytest.approx(scene.box(item), abs=4 / min(width, height))


def test_size_mode_and_determinism():
    for index in range(6):
        scene = sample_scene(0, index, "train")
        picture = draw(scene, 96)
        assert picture.mode == "RGB" and max(picture.size) == 96
        assert picture.width / picture.height == pytest.approx(scene.aspect, abs=0.02)
        assert picture.tobytes() == draw(scene, 96).tobytes()
    assert max(draw(scene, 1000).size) == 1000


def test_noise_is_the_scene_s_own():
    noisy = replace(sample_scene(0, 0, "train"), background=replace(PLAIN, noise=7.0))
    assert draw(noisy, 64).tobytes() != draw(replace(noisy, seed=noisy.seed + 1), 64).tobytes()


@pytest.mark.parametrize("tone", ["light", "dark"])
def test_every_colour_and_ink_stands_out(tone):
    for index in range(60):
        scene = sample_scene(5, index, "train")
        if scene.background.tone != tone:
            continue
        picture = pixels(scene, 224)
        height, width = picture.shape[:2]
        for item in scene.items:
            x1, y1, x2, y2 = (round(v * n) for v, n in zip(scene.box(item), (width, height) * 2, strict=True))
            inside = picture[y1:y2, x1:x2].reshape(-1, 3)
            distance = np.abs(inside - np.asarray(scene.background.tint)).max(-1)
            assert np.quantile(distance, 0.9) > 60


def _distance(one, two, size):
    """Mean squared difference of two pictures drawn at 224 and seen at ``size``."""
    seen = (draw(scene, 224).resize((size, size), Image.Resampling.BICUBIC) for scene in (one, two))
    first, second = (np.asarray(picture, dtype=np.float32) for picture in seen)
    return float(((first - second) ** 2).mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_patterns_of_small_things_are_seen_at_112_and_melt_at_56(shape):
    small = Thing(0.5, 0.5, "yellow", shape, "small", "striped", 0.14)
    striped, dotted, solid = (alone(replace(small, pattern=name)) for name in ("striped", "dotted", "solid"))
    assert _distance(striped, dotted, 112) > 2.5 * _distance(striped, dotted, 56)
    assert min(_distance(striped, solid, 112), _distance(dotted, solid, 112)) > 0.5 * _distance(striped, dotted, 112)


def test_words_are_told_apart_better_at_112_than_at_56():
    words = [alone(text=(Inscription(0.5, 0.15, text, 0.097),)) for text in ("BANK", "BAKE")]
    assert _distance(*words, 112) > 1.5 * _distance(*words, 56)
