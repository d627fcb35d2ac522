"""MM-Vet (arXiv:2308.02490): a judge grades 218 free answers from 0 to 1; the mean, and by capability."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Counted, Found, Latest, OfficialStops, Question, Tally, added, mean, no_strangers
from llavakit.eval.judge import JudgedBenchmark, Request, grade
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows

_TASK = (
    "Grade how right a prediction is, given the question and the true answer: a number from 0.0 (all wrong) to 1.0 "
    "(all right) in steps of 0.1. Where the true answer joins parts by <AND>, full marks need every part, and some of "
    "them earn a share; where by <OR>, any one of them is enough. Complete the last line of the table, with the number "
    "alone."
)
_TABLE = [
    "Question | True answer | Prediction | Grade",
    "--- | --- | --- | ---",
    "Which two numbers solve it? | 2 <AND> 7 | 3 | 0.0",
    "Which two numbers solve it? | 2 <AND> 7 | It is 7. | 0.5",
    "Which two numbers solve it? | 2 <AND> 7 | 2 or 7 | 1.0",
    "What is the man holding? | umbrella <OR> parasol | A parasol against the sun | 1.0",
    "Why is the sign funny? | It forbids reading signs, which takes reading it | It is a sign about signs | 0.4",
]
PROMPT = "\n".join([_TASK, "", *_TABLE, ""])
_OFFICIAL = re.compile(r'^prompt = """(.*?)"""', re.DOTALL | re.MULTILINE)


class MMVet(JudgedBenchmark):
    name = "mm_vet"
    unit = "percent"
    question_file = "mm-vet.json"
    temperature = 0.0
    max_new_tokens = 3

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, self.question_file):
            return [self._question(id, row, row["image"]) for id, row in _stored(data).items()]
        path = find(data, self.question_file)
        image = image_finder(path, images, ("images",))
        return [self._question(id, item, image(item["imagename"])) for id, item in read_json(path).items()]

    def _question(self, id: str, item: Mapping[str, Any], picture: Any) -> Question:
        conversation = question(item["question"], *([picture] if picture else []), id=id, source=self.name)
        return Question(id, conversation, {"answer": item["answer"], "capability": sorted(set(item["capability"]))})

    def answers(self, path: str | Path) -> list[Any]:
        """MM-Vet's grade JSON, or the JSONL that a judge's run leaves."""
        if Path(path).suffix == ".jsonl":
            return _merged(read_jsonl(path))
        grades = read_json(path)
        if not isinstance(grades, dict):
            raise BadRequest(f"{path} must hold MM-Vet's grades by question id, not {type(grades).__name__}")
        return [{"question_id": id} | (g if isinstance(g, dict) else {}) for id, g in grades.items()]

    def check(self, record: Any, number: int) -> Mapping[str, Any]:
        """One question's grades, a list of runs."""
        if not isinstance(record, Mapping) or not isinstance(record.get("score"), list):
            raise BadRequest(
                f"grade {number} must be a mapping with a list of scores, got {str(record)[:100]}; {self.name} is "
                "scored on a judge's grades, not on answers"
            )
        return record

    def strict(self, questions: Sequence[Question], latest: Latest) -> Counted:
        """A question's grade is the mean over the runs with a readable one; where there is none it is left out."""
        grades = {id: [g for g in _grades(record) if g is not None] for id, record in latest.items()}
        scores = {id: mean(own) for id, own in grades.items() if own}
        metrics = _by_capability([q for q in questions if q.id in scores], scores)
        bad = sum(g is None for record in latest.values() for g in _grades(record))
        tallies: list[Tally] = [{"score": scores[q.id], "count": 1.0} if q.id in scores else {} for q in questions]
        return Counted(100.0 * mean(scores.values()), metrics, bad, tallies)

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """As ``mm-vet_evaluator.py`` exports it: unreadable and missing grades count 0; rounded to a decimal."""
        no_strangers(found)
        runs = max((len(record["score"]) for _, record in found), default=0)
        numbers = all(isinstance(score, int | float) for _, record in found for score in record["score"])
        if not runs or not numbers or any(len(record["score"]) < runs for _, record in found):
            raise OfficialStops("not every question was graded in every run")
        each = []
        for run in range(runs):
            each.append({str(record["question_id"]): float(record["score"][run]) for _, record in found})
        totals = [added(scores.values()) / len(questions) * 100 for scores in each]
        shares = [_by_capability(questions, scores) for scores in each]
        metrics = {name: _tenth(mean(share[name] for share in shares)) for name in shares[0]}
        middle = mean(totals)
        spread = mean((total - middle) ** 2 for total in totals) ** 0.5
        metrics |= {"std": _tenth(spread), "runs": float(runs)}
        return Counted(_tenth(middle), metrics | {"total_unrounded": middle})

    def requests(self, data: Path, answers: Sequence[dict[str, Any]]) -> list[Request]:
        """The prompt is the official one where ``mm-vet_evaluator.py`` lies with the data, else in words of our own."""
        evaluator = find_optional(data, "mm-vet_evaluator.py")
        official = _OFFICIAL.search(evaluator.read_text(encoding="utf-8")) if evaluator else None
        prompt = official.group(1) if official else PROMPT
        stored = is_parquet(data, self.question_file)
        items = _stored(data) if stored else read_json(find(data, self.question_file))
        given = {_official_id(answer["question_id"]): answer["text"] for answer in answers}
        missing = next((id for id in items if id not in given), None)
        if missing is not None:
            raise BadRequest(f"{self.name}: question {missing!r} has no answer to be judged")
        requests = []
        for id, item in items.items():
            truth = item["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
            row = " | ".join([item["question"], truth, given[id], ""])
            requests.append(Request("", f"{prompt}\n{row}", {"question_id": id}))
        return requests

    def reply(self, request: Request, text: str) -> dict[str, Any] | None:
        value = grade(text)
        return None if value is None else {"content": text.split(" ")[0].strip(), "score": value}

    def together(self, runs: Sequence[Sequence[dict[str, Any]]]) -> Any:
        """MM-Vet's grade JSON. A run without a readable grade adds none: the official tool then stops."""
        grades: dict[str, dict[str, list[Any]]] = {}
        for line in (line for run in runs for line in run):
            own = grades.setdefault(line["question_id"], {"model": [], "content": [], "score": []})
            own["model"].append(line["judge"])
            own["content"].append(line["content"])
            own["score"].append(line["score"])
        return grades

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": question.id.removeprefix("v1_")}


def _stored(data: Path) -> dict[str, dict[str, Any]]:
    """The hub's copy, by question id."""
    rows = parquet_rows(data, "test*.parquet")
    return {row["question_id"]: row | {"capability": row["capability"].split(",")} for row in rows}


def _official_id(id: Any) -> str:
    """LLaVA's answers have the bare number of ``v1_17``."""
    return id if str(id).startswith("v1_") else f"v1_{id}"


def _grades(record: Mapping[str, Any]) -> list[float | None]:
    contents = record.get("content") or []
    read = [grade(content) if isinstance(content, str) else None for content in contents]
    return read or [score if isinstance(score, int | float) and 0 <= score <= 1 else None for score in record["score"]]


def _by_capability(questions: Sequence[Question], scores: Mapping[str, float]) -> dict[str, float]:
    """Percent by capability and by combination of them."""
    groups: dict[str, list[float]] = {}
    for q in questions:
        capabilities = q.truth.get("capability", ())
        whole = "+".join(capabilities) if len(capabilities) != 1 else f"{capabilities[0]} only"
        for name in [*capabilities, *([whole] if whole else [])]:
            groups.setdefault(name, []).append(scores.get(q.id, 0.0))
    return {name: added(own) / len(own) * 100 for name, own in sorted(groups.items())}


def _merged(records: Sequence[Any]) -> list[dict[str, Any]]:
    grades: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping) or not {"question_id", "content", "score"} <= record.keys():
            raise BadRequest(f"grade {number} must have a question_id, a content and a score, got {str(record)[:100]}")
        own = grades.setdefault(
            record["question_id"], {"question_id": record["question_id"], "content": [], "score": []}
        )
        own["content"].append(record["content"])
        own["score"].append(record["score"])
    return list(grades.values())


def _tenth(value: float) -> float:
    """Rounded as numpy rounds (half to even of the scaled number), which is not as Python does."""
    return round(value * 10) / 10


BENCHMARK = MMVet()
