"""Judged benchmarks from the hub's copies, and in reports and comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llavakit.base.errors import BadRequest
from llavakit.base.files import write_json
from llavakit.chat.conversation import Conversation
from llavakit.eval.compare import compare
from llavakit.eval.held import read_run
from llavakit.eval.judge import JudgedBenchmark, run_judge
from llavakit.eval.run import evaluate, score
from llavakit.eval.tasks.llava_bench_in_the_wild import LlavaBench
from llavakit.eval.tasks.mm_vet import MMVet

from .conftest import Put
from .test_judge import put_wild
from .test_more_tasks import encoded, put_parquet


def test_the_hubs_copies_give_the_judge_the_same_prompts(put: Put, tmp_path: Path) -> None:
    answers = put_wild(put)
    rows: list[dict[str, Any]] = [
        {"question_id": n, "question": f"What {n}?", "caption": f"A scene {n}.", "gpt_answer": f"Reference {n}.",
         "category": category, "image": encoded(3)}
        for n, category in enumerate(("conv", "detail", "complex"))
    ]  # fmt: skip
    put_parquet(tmp_path / "hub/data/train-0.parquet", rows)
    ours = LlavaBench().requests(tmp_path / "hub", answers)
    assert [r.prompt for r in ours] == [r.prompt for r in LlavaBench().requests(tmp_path, answers)]
    item = {"imagename": "v1_0.png", "question": "What?", "answer": "a<AND>b", "capability": ["ocr", "rec"]}
    put("vet/mm-vet.json", {"v1_0": item})
    row = {"question_id": "v1_0", "question": "What?", "answer": "a<AND>b", "capability": "rec,ocr"}
    put_parquet(tmp_path / "vet_hub/data/test-0.parquet", [row | {"image": encoded(3)}])
    said = [{"question_id": "0", "text": "It is a."}]
    (hub,), (official,) = (MMVet().requests(tmp_path / name, said) for name in ("vet_hub", "vet"))
    assert hub == official
    (stored,), (question,) = (MMVet().load(tmp_path / name) for name in ("vet_hub", "vet"))
    assert stored.truth == question.truth


def judged(benchmark: JudgedBenchmark, data: Path, run: Path, replies: list[str | None]) -> None:
    """A model's answers and two runs of a judge that says ``replies``, as the command line leaves them."""

    def answer(conversations: Iterable[Conversation]) -> Any:
        return (f"Said by {run.name} to {c.id}." for c in conversations)

    folder = run / benchmark.name
    evaluate(benchmark, benchmark.load(data), answer, folder)
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    for number in (1, 2):
        out = folder / "judge" / f"run-{number}.jsonl"
        run_judge(benchmark, benchmark.requests(data, answers), lambda requests: iter(replies), "judge", out)
    records = benchmark.answers(folder / "judge/run-1.jsonl")
    result = score(benchmark, benchmark.annotations(data, records), records)
    write_json(folder / "judge/judge.json", {"result": result.plain()})


def test_reviews_are_compared(put: Put, tmp_path: Path) -> None:
    put_wild(put)
    put("mm-vet.json", {f"v1_{n}": {"imagename": "a.png", "question": f"{n}?", "answer": "a", "capability": ["rec"]}
                        for n in range(3)})  # fmt: skip
    for name in ("0.jpg", "1.jpg", "2.jpg", "a.png"):
        put(f"images/{name}")
    for name, wild, vet in (
        ("one", ["8 4", "8 8", None], ["0.5", "1", "0"]),
        ("two", ["8 8", "8 8", "8 2"], ["1", "1", "0"]),
    ):
        judged(LlavaBench(), tmp_path, tmp_path / name, wild)
        judged(MMVet(), tmp_path, tmp_path / name, vet)
    first, second = read_run(tmp_path / "one"), read_run(tmp_path / "two")
    wild, vet = compare(first, second)
    assert (wild.folder, wild.first, wild.second) == ("llava_bench_in_the_wild", 75.0, 100.0)
    assert (wild.count, wild.unpaired) == (2, 2), "the question of which one answer has no review counts for nobody"
    assert (wild.first_better, wild.second_better) == (0, 1)
    assert (vet.first, vet.second) == (50.0, pytest.approx(200 / 3))
    (tmp_path / "one/mm_vet/judge/judge.json").unlink()
    assert [one.folder for one in compare(read_run(tmp_path / "one"), second)] == ["llava_bench_in_the_wild"]
    (tmp_path / "one/llava_bench_in_the_wild/judge/judge.json").unlink()
    with pytest.raises(BadRequest, match="no judge has reviewed"):
        compare(read_run(tmp_path / "one"), second)
