"""MMStar (arXiv:2403.20330): 1,500 questions that need their picture; from the hub's Parquet (``Lin-Chen/MMStar``)."""

from __future__ import annotations

from pathlib import Path

from llavakit.chat.conversation import question
from llavakit.eval.benchmark import Benchmark, Judged, Question, Verdict, mean
from llavakit.eval.prompts import LETTER
from llavakit.eval.source import require_parquet

_BEFORE = ("", "(", "option ", "the answer is ")


class MMStar(Benchmark):
    name = "mmstar"
    unit = "percent"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        questions = []
        for row in require_parquet(data, "val*.parquet"):
            id = str(row["index"])
            text = f"{row['question'].strip()}\n{LETTER}"
            truth = {"answer": row["answer"], "part": row["l2_category"]}
            conversation = question(text, row["image"], id=id, source=self.name)
            questions.append(Question(id, conversation, truth, row["category"]))
        return questions

    def judge(self, question: Question, answer: str) -> Verdict:
        """As MMStar's own code: the first character, or the one after "(", "option " or "the answer is "."""
        said, right = (text.lower().strip().replace("\n", " ") for text in (answer, question.truth["answer"]))
        hit = any(said.startswith(before) and said[len(before) :][:1] == right for before in _BEFORE)
        return Verdict(float(hit), said)

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        score, metrics = super().summarize(judged)
        for part in sorted({q.truth["part"] for q, _ in judged}):
            metrics[part] = 100.0 * mean(v.score for q, v in judged if q.truth["part"] == part)
        return score, metrics


BENCHMARK = MMStar()
