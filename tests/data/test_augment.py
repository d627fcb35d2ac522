"""Augmentation: only where the text stays true, and a function of (seed, epoch, place) alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llavakit.chat.conversation import Conversation, ImageRef, Turn
from llavakit.chat.template import get_template
from llavakit.data.augment import KEPT, augment, may_crop, may_flip
from llavakit.data.loader import Step, Steps
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.image.open import open_image
from tests.data.samples import write


def talk(question: str, answer: str, image: Image.Image | None = None) -> Conversation:
    image = image or Image.fromarray(np.arange(60 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3))
    return Conversation((Turn("user", f"<image>\n{question}"), Turn("assistant", answer)), (ImageRef(image),))


@pytest.mark.parametrize(
    ("question", "answer", "flip", "crop"),
    [
        ("What animal is it?", "A dog.", True, True),
        ("What is it?\nAnswer the question using a single word or phrase.", "Dog", True, True),
        ("Dog or cat?\nAnswer with the option's letter from the given choices directly.", "A", True, True),
        ("Who stands to the left?", "A man.", False, True),
        ("Where is it?", "On the RIGHT side.", False, True),
        ("What does the sign say?", "STOP", False, False),
        ("Describe it.\nReference OCR token: TAXI", "A cab.", False, False),
        ("Where is the dog?", "[0.12, 0.30, 0.25, 0.44]", False, False),
        ("Provide the bounding box coordinate of it.", "There.", False, False),
        ("How many dogs?", "3", True, False),
        ("What is in the corner?", "A lamp.", True, False),
    ],
)
def test_the_text_decides(question: str, answer: str, flip: bool, crop: bool) -> None:
    conversation = talk(question, answer)
    assert (may_flip(conversation), may_crop(conversation)) == (flip, crop)
    before = open_image(conversation.images[0].source)
    sizes, mirrored = set(), set()
    for seed in range(12):
        after = augment(conversation, np.random.default_rng(seed)).images[0].source
        sizes.add(after.size)
        assert KEPT * 0.93 <= after.width * after.height / (60 * 40) <= 1
        mirrored.add(after.tobytes() == before.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes())
    assert (len(sizes) > 1) == crop
    if not crop:
        assert mirrored == ({True, False} if flip else {False})


def test_steps_are_the_same_from_anywhere_and_differ_between_epochs(toy: Any, tmp_path: Path) -> None:
    _, codec = toy
    data = {"all": SourceSpec(path=str(write(tmp_path, 12)))}
    for number, path in enumerate(sorted(tmp_path.glob("*.png"))):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)

    def pixels(step: Step) -> list[Any]:
        return [row.pixels.numpy() for row in step.rows if row.pixels is not None]

    def steps(augmented: bool) -> Steps:
        codec_ = codec.using(get_template("plain"))
        return Steps(Mixture.of(data, False, seed=5), codec_, 4, 4096, 2, "stop", augmented)

    straight = [pixels(step) for step in steps(True).read()]
    for number in (4, 1):
        alone = pixels(steps(True)[number])
        assert all(np.array_equal(a, b) for a, b in zip(alone, straight[number], strict=True))
    plain = [pixels(step) for step in steps(False).read()]
    rows = [(a, b) for one, other in zip(straight, plain, strict=True) for a, b in zip(one, other, strict=True)]
    changed = [a.shape != b.shape or (a != b).any() for a, b in rows]
    assert any(changed)
    first, second = (sorted(p.tobytes() for row in straight[e : e + 3] for p in np.concatenate(row)) for e in (0, 3))
    assert first != second
