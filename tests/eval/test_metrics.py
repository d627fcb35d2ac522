"""Metrics for questions of one's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.eval.metrics import METRICS, iou, overlap, plain_answer

TRUTH = {"answers": ["red ball"], "others": ["blue ball"], "pattern": r"\w+ (?:ball|cube)"}


@pytest.mark.parametrize(
    ("metric", "answer", "truth", "score"),
    [
        ("exact", " Red ball. ", {}, 1.0),
        ("exact", "the red ball", {}, 0.0),
        ("contains", "It is a Red Ball, I think", {}, 1.0),
        ("contains", "red balloon", {}, 0.0),
        ("contains", "a red ball or a blue ball", {}, 0.0),
        ("contains", "C++!", {"answers": ["c++"]}, 1.0),
        ("phrases", "A RED  ball? no: a red ball", {}, 2 / 2 * 1.0),
        ("phrases", "red ball, blue cube", {}, 2 / 3),
        ("phrases", "nothing", {"answers": []}, 1.0),
        ("box", "[0, 0, 10, 10]", {"answers": ["[0.0, 0, 10, 5]"]}, 1.0),
        ("box", "0 0 10 10", {"answers": ["[0, 0, 10, 4.9]"]}, 0.0),
        ("box", "no idea", {"answers": ["[0, 0, 10, 5]"]}, 0.0),
        ("box", "[10, 10, 0, 0]", {"answers": ["[0, 0, 10, 10]"]}, 0.0),
        ("choice", "C. this", {"answers": ["C"]}, 1.0),
        ("words", "A ball that is red", {}, 4 / 7),
        ("words", "ball", {"answers": ["cube", "Ball!"]}, 1.0),
    ],
)
def test_metric(metric: str, answer: str, truth: dict[str, object], score: float) -> None:
    assert METRICS[metric](answer, TRUTH | truth).score == pytest.approx(score)


@given(st.text())
def test_plain_answer_is_idempotent(text: str) -> None:
    assert plain_answer(plain_answer(text)) == plain_answer(text)


@given(st.sampled_from(sorted(METRICS)), st.text())
def test_scores_are_fractions(metric: str, answer: str) -> None:
    truth = TRUTH | ({"answers": ["[0, 0, 1, 1]"]} if metric == "box" else {})
    assert 0.0 <= METRICS[metric](answer, truth).score <= 1.0


BOX = st.tuples(*[st.floats(0, 1)] * 4)


@given(BOX, BOX)
def test_iou_is_a_symmetric_fraction(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> None:
    assert 0.0 <= iou(a, b) <= 1.0 + 1e-9
    assert iou(a, b) == pytest.approx(iou(b, a))


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_overlap_is_one_for_the_same_bag_only(a: list[str], b: list[str]) -> None:
    assert (overlap(a, b) == 1.0) == (sorted(a) == sorted(b))
