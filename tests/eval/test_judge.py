"""What a judge is asked, how its replies are read and filed."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_jsonl
from llavakit.eval.judge import Request, grade, pair_of_scores, prompt_hash, run_judge
from llavakit.eval.run import evaluate, score, take
from llavakit.eval.tasks.llava_bench_coco import LlavaBenchCoco
from llavakit.eval.tasks.llava_bench_in_the_wild import LlavaBench
from llavakit.eval.tasks.mm_vet import MMVet

from .conftest import Put


@pytest.mark.parametrize(
    ("review", "pair"),
    [
        ("8 9\nfine", (8.0, 9.0)), ("8, 9", None), ("8,9", (8.0, 9.0)), ("7.5 10\n", (7.5, 10.0)), ("8 9 ", None),
        ("Assistant 1: 8", None), ("\n8 9", None), ("8", None), ("8 nan", None), ("", None),
    ],
)  # fmt: skip
def test_pair_of_scores(review: str, pair: tuple[float, float] | None) -> None:
    assert pair_of_scores(review) == pair


@pytest.mark.parametrize(
    ("reply", "value"),
    [("0.5", 0.5), ("1.0 since", 1.0), (" 1", None), ("1.1", None), ("-0.1", None), ("half", None), ("", None)],
)
def test_grade(reply: str, value: float | None) -> None:
    assert grade(reply) == value


def put_wild(put: Put) -> list[dict[str, object]]:
    questions = [
        {"question_id": n, "image": f"{n}.jpg", "text": f"What {n}?", "category": category}
        for n, category in enumerate(("conv", "detail", "complex"))
    ]
    put("questions.jsonl", questions)
    put("context.jsonl", [{"image": f"{n}.jpg", "caption": f"A scene {n}."} for n in range(3)])
    put("answers_gpt4.jsonl", [{"question_id": n, "text": f"Reference {n}.", "answer_id": f"r{n}"} for n in range(3)])
    return [{"question_id": n, "text": f"Said {n}."} for n in (2, 0, 1)]


def test_reviews_of_the_wild_bench(put: Put, tmp_path: Path) -> None:
    answers = put_wild(put)
    benchmark = LlavaBench()
    requests = benchmark.requests(tmp_path, answers)
    assert [r.record["category"] for r in requests] == [f"llava_bench_{c}" for c in ("conv", "detail", "complex")]
    # Reference and answer belong together by id; the official code pairs the lines of three files by position.
    assert requests[1].prompt.startswith(
        "[Context]\nA scene 1.\n\n[Question]\nWhat 1?\n\n[Assistant 1]\nReference 1.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nSaid 1.\n\n[End of Assistant 2]\n\n[System]\n"
    )
    assert requests[1].record["answer1_id"] == "r1"
    with pytest.raises(BadRequest, match="question '0' has no answer"):
        benchmark.requests(tmp_path, answers[:1])


def test_the_official_rule_is_taken_where_it_lies_with_the_data(put: Put, tmp_path: Path) -> None:
    answers = put_wild(put)
    own = LlavaBench().requests(tmp_path, answers)
    put("rule.json", {"llava_bench_conv": {"role": "Assistant", "prompt": "Judge well."}})
    official = LlavaBench().requests(tmp_path, answers)
    assert official[0].prompt.endswith("[System]\nJudge well.\n\n")
    assert prompt_hash(official[0]) != prompt_hash(own[0])
    assert prompt_hash(official[1]) == prompt_hash(own[1])


def test_a_run_of_the_judge_leaves_failures_out_and_asks_only_for_them_again(put: Put, tmp_path: Path) -> None:
    benchmark = LlavaBench()
    requests = benchmark.requests(tmp_path, put_wild(put))
    asked: list[str] = []

    def judge(replies: dict[str, str | None]):  # type: ignore[no-untyped-def]
        def ask(requests: Iterable[Request]) -> Iterator[str | None]:
            for request in requests:
                asked.append(request.record["category"])
                yield replies[request.record["category"]]

        return ask

    out = tmp_path / "reviews.jsonl"
    names = [f"llava_bench_{c}" for c in ("conv", "detail", "complex")]
    first = dict(zip(names, ["8 4\nwell", "I can not say", None], strict=True))
    assert run_judge(benchmark, requests, judge(first), "some-judge", out) == 2
    (line,) = read_jsonl(out)
    assert (line["tuple"], line["content"], line["judge"]) == ([8.0, 4.0], "8 4\nwell", "some-judge")
    assert line["prompt_sha256"] == prompt_hash(requests[0])
    result = score(benchmark, benchmark.annotations(tmp_path, [line]), [line])
    assert (result.score, result.missing, result.metrics["strict"]) == (50.0, 2, 50.0)
    asked.clear()
    assert run_judge(benchmark, requests, judge(dict.fromkeys(names, "5 5")), "some-judge", out) == 0
    assert asked == names[1:]
    assert len(read_jsonl(out)) == 3


def test_coco_bench_shows_captions_and_boxes(put: Put, shared: Path) -> None:
    folder = shared / "coco_captions_boxes"
    answers = [{"question_id": n, "text": "Two."} for n in range(90)]
    requests = LlavaBenchCoco().requests(folder, answers)
    assert len(requests) == 90
    assert requests[0].record["category"] == "conv"
    assert ": [0." in requests[0].prompt.split("[Question]")[0]
    assert len(LlavaBenchCoco().load(folder)) == 90


def test_mm_vet_prompts(put: Put, tmp_path: Path) -> None:
    item = {"imagename": "v1_0.png", "question": "What?", "answer": "a<AND>b", "capability": ["rec"]}
    put("mm-vet.json", {"v1_0": item})
    answers = [{"question_id": 0, "text": "It is a."}]
    benchmark = MMVet()
    (request,) = benchmark.requests(tmp_path, answers)
    assert request.prompt.endswith("\nWhat? | a <AND> b | It is a. | ")
    put("mm-vet_evaluator.py").write_text('import x\n\nprompt = """Grade.\n\nA | B\n"""\n')
    assert benchmark.requests(tmp_path, answers)[0].prompt == "Grade.\n\nA | B\n\nWhat? | a <AND> b | It is a. | "
    out = tmp_path / "grades.jsonl"
    assert run_judge(benchmark, [request], lambda requests: iter(["0.6 of it"]), "judge", out) == 0
    records = benchmark.answers(out)
    assert records == [{"question_id": "v1_0", "content": ["0.6"], "score": [0.6]}]
    assert score(benchmark, benchmark.annotations(tmp_path, records), records).score == 60.0


def test_asking_a_judged_benchmark_says_that_it_is_not_judged(put: Put, tmp_path: Path) -> None:
    put_wild(put)
    for number in range(3):
        put(f"images/{number}.jpg")
    result = evaluate(LlavaBench(), LlavaBench().load(tmp_path), lambda cs: (c.id for c in cs), tmp_path / "out")
    assert result.metrics == {"not judged yet (count)": 3.0}
    assert [a["text"] for a in read_jsonl(tmp_path / "out" / "answers.jsonl")] == ["0", "1", "2"]


def test_recorded_answers_wait_for_their_judge(put: Put, tmp_path: Path) -> None:
    put("mm-vet.json", {"v1_0": {"imagename": "a.png", "question": "What?", "answer": "a", "capability": ["rec"]}})
    questions = MMVet().load(tmp_path)
    take(MMVet(), questions, [{"question_id": 0, "text": "It is."}], tmp_path / "out")
    (answer,) = read_jsonl(tmp_path / "out/answers.jsonl")
    assert (answer["question_id"], answer["text"], answer["truth"]) == ("0", "It is.", "a")
    assert len(MMVet().requests(tmp_path, [answer])) == 1
    with pytest.raises(BadRequest, match="none of the 1 answers"):
        take(MMVet(), questions, [{"question_id": 5, "text": "It is."}], None)


def test_answers_are_no_reviews() -> None:
    for benchmark in (LlavaBench(), MMVet()):
        with pytest.raises(BadRequest, match="on a judge's"):
            score(benchmark, [], [{"question_id": 1, "text": "It is."}])


@given(st.text())
def test_no_reply_breaks_the_reading(text: str) -> None:
    pair, value = pair_of_scores(text), grade(text)
    assert pair is None or len(pair) == 2
    assert value is None or 0 <= value <= 1
