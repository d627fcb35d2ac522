"""Intervals and tests that draw pictures."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from llavakit.eval.benchmark import Tally
from llavakit.eval.resample import holm, interval, paired
from llavakit.eval.tasks.gqa import Gqa

MEAN = Gqa().headline


def tallies(scores: np.ndarray) -> list[Tally]:
    return [{"score": float(score), "count": 1.0} for score in scores]


def test_the_interval_covers_the_truth_where_answers_about_a_picture_go_together() -> None:
    """Eight questions a picture, nearly all right or all wrong: an interval of questions would be too narrow."""
    rng = np.random.default_rng(0)
    covered = {"pictures": 0, "questions": 0}
    for _ in range(60):
        easy = rng.random(60) < 0.6
        scores = rng.random((60, 8)) < np.where(easy, 0.95, 0.05)[:, None]
        pictures = [f"{n // 8}.jpg" for n in range(480)]
        for unit, names in (("pictures", pictures), ("questions", [""] * 480)):
            found = interval(tallies(scores.ravel()), names, MEAN)
            assert found is not None
            covered[unit] += found[0] <= 100 * (0.6 * 0.95 + 0.4 * 0.05) <= found[1]
    assert 53 <= covered["pictures"] <= 60
    assert covered["questions"] < 45


def test_a_mean_of_many_has_the_interval_of_the_normal_distribution() -> None:
    scores = np.arange(1000) % 4 == 0
    found = interval(tallies(scores), [""] * 1000, MEAN)
    assert found is not None
    half = 1.96 * 100 * np.sqrt(0.25 * 0.75 / 1000)
    assert found == (pytest.approx(25 - half, abs=0.3), pytest.approx(25 + half, abs=0.3))
    assert found == interval(tallies(scores), [""] * 1000, MEAN)


def test_one_picture_has_no_interval() -> None:
    assert interval(tallies(np.ones(3)), ["a"] * 3, MEAN) is None
    assert paired(tallies(np.ones(3)), tallies(np.zeros(3)), ["a"] * 3, MEAN) == (None, 1.0)


def ratio_of_sums(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(sums["hits"] / (sums["hits"] + sums["misses"] + 1))


def test_the_p_value_is_that_of_all_swaps() -> None:
    rng = np.random.default_rng(3)
    names = [f"{n}" for n in range(12)]
    one, other = ([{"hits": float(a), "misses": float(b)} for a, b in rng.integers(0, 4, (12, 2))] for _ in range(2))
    one[:4] = other[:4]  # equal answers: swapping them changes nothing

    def difference(swapped: tuple[int, ...]) -> float:
        values = []
        for first, second in ((one, other), (other, one)):
            taken = [second[n] if n - 4 in swapped else first[n] for n in range(12)]
            values.append(float(ratio_of_sums({k: np.array(sum(t[k] for t in taken)) for k in ("hits", "misses")})))
        return values[1] - values[0]

    every = [difference(swapped) for size in range(9) for swapped in itertools.combinations(range(8), size)]
    exact = np.mean([abs(d) >= abs(every[0]) - 1e-12 for d in every])
    between, p = paired(one, other, names, ratio_of_sums)
    assert p == pytest.approx(exact, abs=0.02)
    assert between is not None and between[0] <= every[0] <= between[1]


def test_two_equal_runs_do_not_differ_and_unequal_ones_do() -> None:
    scores = np.random.default_rng(0).random(300) < 0.5
    names = [f"{n // 3}" for n in range(300)]
    assert paired(tallies(scores), tallies(scores), names, MEAN) == ((0.0, 0.0), 1.0)
    between, p = paired(tallies(scores), tallies(scores | (np.arange(300) % 5 == 0)), names, MEAN)
    assert p < 1e-3 and between is not None and between[0] > 0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
