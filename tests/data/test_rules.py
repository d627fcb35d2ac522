"""Each rule by itself, and choices that are functions of the seed alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.data import rules
from llavakit.data.boxes import Region, as_text, padded_square
from llavakit.data.dice import Dice
from llavakit.data.reader import Rule, Talk
from llavakit.image.square import Square, square

DICE = Dice(0, "test")


def talk(id: str, *texts: str, image: str = "a.jpg", **extra: Any) -> Talk:
    turns = tuple(("gpt" if n % 2 else "human", text) for n, text in enumerate(texts))
    return Talk(id, turns, (image,) if image else (), extra=extra)


def after(rule: Rule, *talks: Talk) -> list[Talk]:
    return list(rule.act(talks, DICE))


def test_capitalised_answers() -> None:
    (made,) = after(rules.capitalised_answers(), talk("1", "what?", "yes", "who?", "the man"))
    assert [text for _, text in made.turns] == ["what?", "Yes", "who?", "The man"]


def test_merged_by_image() -> None:
    made = after(
        rules.merged_by_image(),
        talk("1", "a?", "a", image="x/9.jpg"),
        talk("2", "b?", "b", image="7.jpg"),
        talk("3", "c?", "c", image="x/9.jpg"),
    )
    assert [(m.id, [text for _, text in m.turns]) for m in made] == [("9", ["a?", "a", "c?", "c"]), ("7", ["b?", "b"])]


def test_format_prompt() -> None:
    one, each = (after(rules.format_prompt("Short.", e), talk("1", "a?", "a", "b?", "b"))[0] for e in (False, True))
    assert [text for _, text in one.turns] == ["a?\nShort.", "a", "b?", "b"]
    assert [text for _, text in each.turns] == ["a?\nShort.", "a", "b?\nShort.", "b"]


def test_rotated_choices() -> None:
    """Every letter is right once, and always names the same choice."""
    made = after(rules.rotated_choices(), talk("1", question="Which?", choices=["cat", "dog", "cow"], correct=1))
    assert [m.turns[1][1] for m in made] == ["B", "A", "C"]
    for m in made:
        lines = m.turns[0][1].split("\n")
        assert lines[0] == "Which?" and f"{m.turns[1][1]}. dog" in lines
    assert made[1].turns[0][1] == "Which?\nA. dog\nB. cow\nC. cat"
    assert len(after(rules.merged_by_image(), *made)) == 3, "rotations do not merge into one conversation"


def test_sampled() -> None:
    talks = [talk(str(n), "a", "b", image=f"{n}.jpg") for n in range(100)]
    chosen = after(rules.sampled(30), *talks)
    assert len(chosen) == 30 and [c.id for c in chosen] == sorted((c.id for c in chosen), key=int)
    backwards = rules.sampled(30).act(talks[::-1], DICE)
    assert {c.id for c in chosen} == {c.id for c in backwards}, "the choice is the items', not their order's"
    assert len(after(rules.sampled(300), *talks)) == 100


def test_short_pieces() -> None:
    texts = [f"{n}" for n in range(40)]
    made = after(rules.short_pieces(10), talk("a", *texts))
    assert [len(m.turns) // 2 for m in made] == [9, 9, 2] and [m.id for m in made] == ["a", "a_1", "a_2"]
    assert [text for m in made for _, text in m.turns] == texts


def test_limited_regions() -> None:
    made = after(rules.limited_regions(10), talk("a", regions=[str(n) for n in range(25)]), talk("b", regions=["x"]))
    assert len(made[0].extra["regions"]) == 10 and made[1].extra["regions"] == ["x"]
    assert made[0].extra["regions"] == sorted(made[0].extra["regions"], key=int)


def test_region_questions() -> None:
    regions = [(f"[0.{n}, 0.1, 0.9, 0.9]", f"thing {n}.") for n in range(60)]
    (made,) = after(rules.region_questions(), talk("a", regions=regions))
    kinds = Counter()
    for (_, asked), (_, said), (box, phrase) in zip(made.turns[::2], made.turns[1::2], regions, strict=True):
        if said == phrase:
            kinds["describe"] += 1
            assert asked == f"Please provide a short description for this region: {box}."
        else:
            kinds["locate"] += 1
            assert said == box and asked.endswith(f"region this sentence describes: {phrase}")
    assert min(kinds.values()) > 15


def test_one_caption() -> None:
    captions = [f"c{n}" for n in range(5)]
    talks = [talk(str(n), image=f"{n}.jpg", captions=captions, ocr=["STOP", "go"]) for n in range(200)]
    made = after(rules.one_caption("Caption?"), *talks)
    assert {m.turns[0][1] for m in made} == {"Caption?\nReference OCR token: STOP, go"}
    counts = Counter(m.turns[1][1] for m in made)
    assert set(counts) == set(captions) and min(counts.values()) > 20
    assert after(rules.one_caption("Caption?"), talk("1", captions=["x"]))[0].turns == (
        ("human", "Caption?"),
        ("gpt", "x"),
    )


def test_coco_names() -> None:
    assert rules.coco_name(42) == "000000000042.jpg"
    assert rules.coco_number("COCO_train2014_000000581857_16.jpg") == "000000581857.jpg"
    assert rules.image_folder("vg").act([talk("1", image="a/1.jpg")], DICE)[0].images == ("vg/a/1.jpg",)


@pytest.mark.parametrize(
    ("size", "box", "text"),
    [
        ((200, 100), (20, 10, 100, 50), "[0.1, 0.3, 0.6, 0.55]"),
        ((100, 200), (0, 0, 100, 200), "[0.25, 0.0, 0.75, 1.0]"),
        ((100, 100), (-5, 20, 200, 10), "[0.0, 0.2, 1.0, 0.3]"),
    ],
)
def test_boxes_by_hand(size: tuple[int, int], box: tuple[float, ...], text: str) -> None:
    assert as_text(padded_square(Region(*box, "x"), *size)) == text  # type: ignore[arg-type]


@given(width=st.integers(20, 60), height=st.integers(20, 60), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_box_stands_where_the_model_sees_it(width: int, height: int, data: st.DataObject) -> None:
    """A white box is drawn, the picture padded as for the model, and the box looked for there."""
    x, y = data.draw(st.integers(0, width - 10)), data.draw(st.integers(0, height - 10))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y : y + 10, x : x + 10] = 255
    side = max(width, height)
    seen = square(Image.fromarray(pixels), Square(size=side))[2] > 200
    rows, columns = np.nonzero(seen.any(axis=1))[0], np.nonzero(seen.any(axis=0))[0]
    found = (columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side)
    assert found == pytest.approx(padded_square(Region(x, y, 10, 10, ""), width, height))


def test_dice_belong_to_their_names() -> None:
    rolls = {Dice(seed, *names).roll("key") for seed in (0, 1) for names in (("a", "b"), ("a",), ("ab",), ("b", "a"))}
    assert len(rolls) == 8
    # Written down once: another value here means that every built mixture changes.
    assert Dice(0, "vg").roll("key") == 11282510017030387668
