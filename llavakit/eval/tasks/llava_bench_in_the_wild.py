"""LLaVA-Bench (In-the-Wild): 60 questions; a judge scores the answer and a reference, and their relation counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, read_jsonl
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Counted, Found, Latest, OfficialStops, Question, Tally, mean, ratio
from llavakit.eval.judge import JudgedBenchmark, Request, pair_of_scores
from llavakit.eval.source import find, find_optional, image_finder, is_parquet, parquet_rows

if TYPE_CHECKING:
    import numpy as np

_SYSTEM = "You check the quality of answers, precisely and fairly."
_RULE = (
    "Two assistants answered the question above, which is about a picture that they saw. You do not see it; the "
    "context above describes it in {shown}. Judge how helpful, relevant, correct and detailed each answer is, and give "
    "each a score from 1 (worst) to 10 (best); which of them comes first must not matter.\nWrite the two scores on the "
    "first line, that of assistant 1 first, with a space between them and nothing else. Explain them from the second "
    "line on."
)


class LlavaBench(JudgedBenchmark):
    name = "llava_bench_in_the_wild"
    unit = "percent"
    question_file = "questions.jsonl"
    reference_file = "answers_gpt4.jsonl"
    context_file = "context.jsonl"
    prefix = "llava_bench_"
    shown = "a few sentences describing the image"
    temperature = 0.2
    max_new_tokens = 1024

    def read(self, data: Path, images: Path | None) -> list[Question]:
        if is_parquet(data, self.question_file):
            return [self._question(row["question_id"], row, row["image"]) for row in self._stored(data)]
        path = find(data, self.question_file)
        image = image_finder(path, images, ("images",))
        return [self._question(item["question_id"], item, image(item["image"])) for item in read_jsonl(path)]

    def _stored(self, data: Path) -> list[dict[str, Any]]:
        """The hub's copy, its columns named as LLaVA's files name them."""
        rows = enumerate(parquet_rows(data, "train*.parquet"))
        return [row | {"text": row["question"], "question_id": number} for number, row in rows]

    def _question(self, id: Any, item: Mapping[str, Any], picture: Any) -> Question:
        conversation = question(item["text"], picture, id=str(id), source=self.name)
        return Question(str(id), conversation, {"number": id}, self.prefix + item["category"])

    def check(self, record: Any, number: int) -> Mapping[str, Any]:
        """A line of the reviews."""
        sound = isinstance(record, Mapping) and "question_id" in record
        if not sound or not ("tuple" in record or isinstance(record.get("score"), list)):
            raise BadRequest(
                f"review {number} must be a mapping with a question_id and a tuple, got {str(record)[:100]}; "
                f"{self.name} is scored on a judge's reviews, not on answers"
            )
        return record

    def strict(self, questions: Sequence[Question], latest: Latest) -> Counted:
        """Over the questions with a readable review; what is missing or malformed is left out and counted."""
        pairs = {id: _sound(record) for id, record in latest.items()}
        read = {id: pair for id, pair in pairs.items() if pair is not None}
        kinds: dict[str, list[tuple[float, float]]] = {"all": list(read.values())}
        for q in questions:
            if q.id in read:
                kinds.setdefault(q.group, []).append(read[q.id])
        metrics: dict[str, float] = {}
        for kind, values in sorted(kinds.items()):
            reference, own = mean(a for a, _ in values), mean(b for _, b in values)
            metrics |= {kind: 100.0 * own / reference if reference else 0.0}
            metrics |= {f"{kind}_reference": 10.0 * reference, f"{kind}_model": 10.0 * own}
        tallies: list[Tally] = [
            {"reference": read[q.id][0], "own": read[q.id][1]} if q.id in read else {} for q in questions
        ]
        return Counted(metrics["all"], metrics, len(pairs) - len(read), tallies)

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        return 100.0 * ratio(sums["own"], sums["reference"])

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """As ``summarize_gpt_review.py`` prints it: every line counts, malformed ones as -1, rounded twice."""
        kinds: dict[str, list[Sequence[float]]] = {}
        for _, record in found:
            pair = record.get("tuple") if "category" in record else record.get("tuple", record.get("score"))
            if not _two_numbers(pair):
                raise OfficialStops(f"a review of question {record['question_id']} without two numbers")
            for kind in ("all", *([record["category"]] if "category" in record else [])):
                kinds.setdefault(kind, []).append(pair)
        metrics: dict[str, float] = {}
        for kind, pairs in sorted(kinds.items()):
            reference, own = (round(mean(pair[i] for pair in pairs), 3) for i in (0, 1))
            if not reference:
                raise OfficialStops(f"the reference's mean score is 0 in {kind}")
            metrics |= {kind: round(own / reference * 100, 1)}
            metrics |= {f"{kind}_reference": round(reference * 10, 1), f"{kind}_model": round(own * 10, 1)}
        return Counted(metrics["all"], metrics)

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": question.truth["number"]}

    def requests(self, data: Path, answers: Sequence[dict[str, Any]]) -> list[Request]:
        """The rule is the official one where LLaVA's ``rule.json`` lies with the data, else in words of our own."""
        asked, references, contexts = self._sources(data)
        rules = find_optional(data, "rule.json")
        official = read_json(rules) if rules else {}
        given = {str(a["question_id"]): a for a in answers}
        missing = [id for id in asked if id not in given or id not in references]
        if missing:
            raise BadRequest(f"{self.name}: question {missing[0]!r} has no answer or no reference to be judged against")
        requests = []
        for number, (id, item) in enumerate(asked.items(), 1):
            rule = official.get(self.prefix + item["category"], {"prompt": _RULE.format(shown=self.shown)})["prompt"]
            requests.append(self._request(number, item, references[id], given[id], contexts[id], rule))
        return requests

    def _sources(self, data: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
        """Questions, reference answers and contexts by question id."""
        if is_parquet(data, self.question_file):
            asked = {str(row["question_id"]): row for row in self._stored(data)}
            references = {
                id: {"question_id": row["question_id"], "text": row["gpt_answer"]} for id, row in asked.items()
            }
            return asked, references, {id: self._context(row) for id, row in asked.items()}
        asked = {str(q["question_id"]): q for q in read_jsonl(find(data, self.question_file))}
        told = {c["image"]: self._context(c) for c in read_jsonl(find(data, self.context_file))}
        references = {str(r["question_id"]): r for r in read_jsonl(find(data, self.reference_file))}
        return asked, references, {id: told[q["image"]] for id, q in asked.items()}

    def _context(self, item: Mapping[str, Any]) -> str:
        caption = item["caption"]
        return "\n".join(caption) if isinstance(caption, list) else str(caption)

    def _request(
        self,
        number: int,
        asked: Mapping[str, Any],
        reference: Mapping[str, Any],
        own: Mapping[str, Any],
        context: str,
        rule: str,
    ) -> Request:
        prompt = (
            f"[Context]\n{context}\n\n[Question]\n{asked['text']}\n\n"
            f"[Assistant 1]\n{reference['text']}\n\n[End of Assistant 1]\n\n"
            f"[Assistant 2]\n{own['text']}\n\n[End of Assistant 2]\n\n[System]\n{rule}\n\n"
        )
        record = {
            "id": number,
            "question_id": asked["question_id"],
            "answer1_id": reference.get("answer_id", reference["question_id"]),
            "answer2_id": own.get("answer_id", own["question_id"]),
            "category": self.prefix + asked["category"],
        }
        return Request(_SYSTEM, prompt, record)

    def reply(self, request: Request, text: str) -> dict[str, Any] | None:
        pair = pair_of_scores(text)
        return None if pair is None else {"content": text, "tuple": list(pair)}


def _sound(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """The two scores of a review, None where they are not two numbers from 1 to 10 or not what its text says."""
    pair = record.get("tuple", record.get("score"))
    if not _two_numbers(pair):
        return None
    said = pair_of_scores(record["content"]) if isinstance(record.get("content"), str) else (pair[0], pair[1])
    sound = all(0 < x <= 10 for x in pair) and said == (pair[0], pair[1])
    return (float(pair[0]), float(pair[1])) if sound else None


def _two_numbers(pair: Any) -> TypeGuard[Sequence[float]]:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)


BENCHMARK = LlavaBench()
