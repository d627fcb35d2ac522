"""LLaVA-Bench's reviews and MM-Vet's grades, counted as their official summaries count."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.chat.conversation import Conversation
from llavakit.eval.benchmark import Question
from llavakit.eval.run import score
from llavakit.eval.tasks.llava_bench_in_the_wild import LlavaBench
from llavakit.eval.tasks.mm_vet import MMVet

from .conftest import Put
from .test_official import RECORDED, both


def test_llava_bench_prints_what_the_official_summary_prints(tmp_path: Path) -> None:
    lines = RECORDED["reviews"]["lines"]
    benchmark = LlavaBench()
    questions = benchmark.annotations(tmp_path, lines)  # no question file is needed
    official, strict = both(LlavaBench, questions, lines)
    for kind, values in RECORDED["reviews"]["official"].items():
        assert [official.metrics[f"{kind}{end}"] for end in ("", "_reference", "_model")] == values
    assert official.score == RECORDED["reviews"]["official"]["all"][0]
    malformed = {line["question_id"] for line in lines if line["tuple"][0] < 0}
    pairs = {line["question_id"]: line["tuple"] for line in lines if line["question_id"] not in malformed}
    reference, own = np.mean(list(pairs.values()), axis=0)
    assert strict.score == pytest.approx(100 * own / reference)
    assert (official.count, official.unparsed) == (15, len(malformed))
    assert official.duplicates == len(lines) - 15


@pytest.mark.parametrize("pair", [[1, 2, 3], 5, ["8", "9"], None])
def test_reviews_without_two_numbers_stop_the_official_summary(pair: Any, tmp_path: Path) -> None:
    fine = {"question_id": 0, "category": "llava_bench_conv", "content": "8 4", "tuple": [8, 4]}
    lines = [fine, fine | {"question_id": 1, "tuple": pair}]
    result = score(LlavaBench(), LlavaBench().annotations(tmp_path, lines), lines)
    assert (result.score, result.unparsed, result.metrics["official_stops"]) == (50.0, 1, 1.0)


def put_mm_vet(put: Put, count: int) -> None:
    capabilities = (["rec"], ["ocr", "rec"], ["math", "ocr"])
    item = {"imagename": "v1_0.png", "question": "What?", "answer": "x"}
    put("mm-vet.json", {f"v1_{n}": item | {"capability": capabilities[n % 3]} for n in range(count)})


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_mm_vet_rounds_as_its_evaluator(seed: int, runs: int) -> None:
    draw = random.Random(seed)
    questions = [Question(f"v1_{n}", Conversation(()), {"capability": ["rec"]}) for n in range(16)]
    grades = np.array([[draw.choice((0.0, 0.1, 0.25, 0.5, 1.0)) for _ in range(runs)] for _ in range(15)])
    records = [{"question_id": f"v1_{n}", "score": list(map(float, row))} for n, row in enumerate(grades)]
    result = score(MMVet(), questions, records)
    totals = np.zeros(runs)
    for row in grades:  # one by one, as it does: the last bit decides a tie
        totals += row
    totals = totals / 16 * 100
    assert result.score == pytest.approx(round(totals.mean(), 1), abs=1e-9)
    assert result.metrics["std"] == pytest.approx(round(totals.std(), 1), abs=1e-9)


def test_mm_vet(put: Put, tmp_path: Path) -> None:
    put_mm_vet(put, 4)
    fine = {"model": ["g"], "content": ["1.0"], "score": [1.0]}
    grades = {"v1_0": fine, "v1_1": fine | {"content": ["I think"], "score": [0.0]}, "v1_2": fine}
    benchmark = MMVet()
    records = benchmark.answers(put("grade.json", grades))
    questions = benchmark.annotations(tmp_path, records)
    official, strict = both(MMVet, questions, records)
    odd = [records[0] | {"score": [None], "content": [None]}]
    assert score(MMVet(), questions, odd).metrics["official_stops"] == 1.0
    # An unreadable grade and a missing one count 0 officially; strictly they are left out.
    assert (official.score, strict.score) == (50.0, 100.0)
    assert (official.missing, official.unparsed) == (1, 1)
    assert official.metrics["rec"] == 33.3
    assert official.metrics["math+ocr"] == 100.0
    assert official.metrics["rec only"] == 50.0
    stopped = score(MMVet(), questions, [*records, {"question_id": "v1_3", "score": [1.0, 0.5]}])
    assert stopped.metrics["official_stops"] == 1.0
