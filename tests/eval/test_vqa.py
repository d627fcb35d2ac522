"""The two VQA normalisations, on values that the official tools give, and their properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.eval.vqa import m4c_accuracy, normalize, normalize_m4c, vizwiz_accuracy, vqa_accuracy

TEXT = st.text(alphabet="aAnthe sSyYo01289.,?!-/'\n\té", max_size=20)


@pytest.mark.parametrize(
    ("text", "official", "m4c"),
    [
        ("The red   car.", "red car", "red car"),
        ("two", "2", "2"),
        ("None", "0", "0"),
        ("dont", "don't", "don't"),
        ("somebody'd", "somebodyd", "somebodyd"),
        ("red-blue", "red blue", "red blue"),
        ("red - blue", "red blue", "red blue"),
        ("1,000 a-b", "1000 ab", "1000 b"),
        ("3.5", "3.5", "3.5"),
        ("a.b.", "ab", "ab"),
        ("it's", "it's", "it 's"),
        ("is, it?", "is it", "is it"),
        ("a", "", ""),
    ],
)
def test_normalisation(text: str, official: str, m4c: str) -> None:
    assert normalize(text) == official
    assert normalize_m4c(text) == m4c


def test_only_32_periods_go_as_in_the_official_code() -> None:
    assert normalize("." * 40) == "." * 8


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_leave_one_out_over_ten_answers(matches: int, expected: float) -> None:
    answers = ["cat"] * matches + [f"dog{n}" for n in range(10 - matches)]
    assert vqa_accuracy("Cat.", answers if matches < 10 else ["cat"] * 9 + ["a cat"]) == pytest.approx(expected)
    assert m4c_accuracy("Cat.", answers) == pytest.approx(expected)


def test_unanimous_annotators_switch_the_official_normalisation_off() -> None:
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0.0
    assert m4c_accuracy("Yes", ["yes"] * 10) == 1.0


@pytest.mark.parametrize(
    ("answer", "equal"),
    [
        ("dont", "don’t"), ("couldn'tve", "couldn’t’ve"), ("somebody’d", "somebodyd"),
        ("somebody'd", "somebody'd"), ("cant", "can't"), ("wheres", "where's"), ("whod've", "whod've"),
    ],
)  # fmt: skip
def test_vizwiz_has_contractions_of_its_own(answer: str, equal: str) -> None:
    assert vizwiz_accuracy(answer, [equal] * 10) == 1.0


@given(TEXT, st.lists(TEXT, min_size=1, max_size=10))
def test_accuracies_are_fractions_and_ignore_the_order_of_annotators(answer: str, answers: list[str]) -> None:
    for accuracy in (vqa_accuracy, m4c_accuracy):
        assert 0.0 <= accuracy(answer, answers) <= 1.0
        assert accuracy(answer, answers) == pytest.approx(accuracy(answer, answers[::-1]))


@given(st.lists(st.sampled_from(["red", "2", "7.5", "don't", "left", "wc"]), max_size=5))
def test_a_normal_answer_stays_as_it_is(words: list[str]) -> None:
    text = " ".join(words)
    assert normalize(text) == normalize_m4c(text) == text
