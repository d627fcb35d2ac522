"""ScienceQA's letter rule and POPE's yes/no rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.eval.choice import letter, lettered
from llavakit.eval.yesno import yes_no_metrics, yes_or_no


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", "B"),
        (" B\n", ""),  # the newline becomes ". ", as in the official code
        (" B ", "B"),
        ("C. the third", "C"),
        ("C.", ""),
        ("C\nbecause", "C"),
        ("Well. The answer is D.", "D"),
        ("The answer is Because. The answer is A.", "A"),
        ("The answer is E", "E"),
        ("F", ""),
        ("b", ""),
        ("", ""),
        ("AB", ""),
    ],
)
def test_letter(answer: str, expected: str) -> None:
    assert letter(answer, "ABCDE") == expected


def test_lettered() -> None:
    assert lettered(["x", "y"]) == "A. x\nB. y"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("No", "no"),
        ("No, there is.", "no"),
        ("There is not. Yes", "no"),
        ("NO", "yes"),
        ("nothing", "yes"),
        ("Yes. No", "yes"),
        ("No\nwell", "yes"),
        ("", "yes"),
    ],
)
def test_yes_or_no(answer: str, expected: str) -> None:
    assert yes_or_no(answer) == expected


def test_metrics_by_hand() -> None:
    pairs = [("yes", "yes")] * 3 + [("yes", "no")] + [("no", "no")] * 4 + [("no", "yes")] + [("", "yes")]
    found = yes_no_metrics(pairs)
    assert found == pytest.approx({"f1": 2 / 3, "accuracy": 0.7, "precision": 0.75, "recall": 0.6, "yes_ratio": 0.4})


@given(st.lists(st.tuples(st.sampled_from(["yes", "no", ""]), st.sampled_from(["yes", "no"]))))
def test_metrics_never_divide_by_zero(pairs: list[tuple[str, str]]) -> None:
    assert all(0.0 <= value <= 1.0 for value in yes_no_metrics(pairs).values())
