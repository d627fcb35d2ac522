"""MMBench (arXiv:2307.06281): a question counts when it is answered rightly with its options in every rotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import ImageRef, question
from llavakit.eval.benchmark import Benchmark, Counted, Found, Judged, Latest, Question, Tally, Verdict, mean, text_of
from llavakit.eval.infer import NONE_OF_THEM, infer_option
from llavakit.eval.prompts import LETTER
from llavakit.eval.source import EMPTY, base64_picture, find_all, is_parquet, parquet_rows, tsv_rows
from llavakit.eval.xlsx import read_sheet, workbook

_ROTATION = 1_000_000
"""An index is the question's number plus this many times the rotation."""
_LEFT_OUT = {"hint", "category", "source", "image", "comment", "l2-category"}


class MMBench(Benchmark):
    name = "mmbench"
    unit = "fraction"
    also: ClassVar[tuple[str, ...]] = ("MMBench_EN",)
    letter: ClassVar[str] = LETTER
    files: ClassVar[tuple[str, ...]] = (
        "mmbench_dev_20230712.tsv", "mmbench_dev_en*.tsv", "MMBench_DEV_EN*.tsv", "mmbench_test*.tsv",
        "MMBench_TEST_EN*.tsv", "*.xlsx",
    )  # fmt: skip

    copies: ClassVar[tuple[str, ...]] = ("en/dev*.parquet", "en/test*.parquet", "dev*.parquet", "test*.parquet")

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """The benchmark's TSV, which holds the pictures; for scoring also a workbook with its ``index``, options and
        ``answer``."""
        rows = self._rows(data)
        pictures: dict[str, ImageRef] = {}
        questions = []
        for row in rows:
            index, cell = str(int(row["index"])), row.get("image") or ""
            if isinstance(cell, ImageRef):
                pictures[index] = cell
            elif cell:
                # A rotation may name the row that has its picture.
                pictures[index] = pictures[cell] if cell in pictures else base64_picture(cell)
            refs = [pictures[index]] if index in pictures else []
            choices = {letter: row[letter] for letter in "ABCDE" if row.get(letter)}
            truth = {"answer": row.get("answer", ""), "choices": choices, "kinds": _kinds(row)}
            text = f"{_asked(row)}\n{self.letter}"
            questions.append(Question(index, question(text, *refs, id=index, source=self.name), truth))
        return questions

    def _rows(self, data: Path) -> list[dict[str, Any]]:
        if is_parquet(data, *self.files):
            rows = list(parquet_rows(data, *self.copies))
            return [{k: "" if isinstance(v, str) and v in EMPTY else v for k, v in row.items()} for row in rows]
        path = self._file(data)
        return tsv_rows(path) if path.suffix == ".tsv" else read_sheet(path)

    def _file(self, data: Path) -> Path:
        found = [path for pattern in self.files for path in find_all(data, pattern) if self._own(path.name)]
        if not found:
            raise BadRequest(f"no {' or '.join(self.files)} in {data} or up to two folders below; put it there")
        return found[0]

    def _own(self, name: str) -> bool:
        return "_cn" not in name.lower()

    def has_truth(self, question: Question) -> bool:
        return bool(question.truth["answer"])

    def judge(self, question: Question, answer: str) -> Verdict:
        parsed = infer_option("nan" if answer in EMPTY else answer, question.truth["choices"])
        return Verdict(float(parsed == question.truth["answer"]), parsed, parsed == NONE_OF_THEM)

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        """The headline is the share of questions whose rotations are all right."""
        groups: dict[int, list[tuple[Question, Verdict]]] = {}
        for q, verdict in judged:
            groups.setdefault(int(q.id) % _ROTATION, []).append((q, verdict))
        hits = {number: float(all(v.score for _, v in group)) for number, group in groups.items()}
        plain = [v.score for q, v in judged if int(q.id) < _ROTATION]
        metrics = {"circular": mean(hits.values()), "vanilla": mean(plain), "groups": float(len(hits))}
        kinds: dict[str, list[float]] = {}
        for number, group in groups.items():
            for kind in group[0][0].truth["kinds"]:
                kinds.setdefault(kind, []).append(hits[number])
        return metrics["circular"], metrics | {kind: mean(scores) for kind, scores in sorted(kinds.items())}

    def tally(self, judged: Judged) -> list[Tally]:
        """A question's rotations are counted once, with the first of them."""
        hits: dict[int, float] = {}
        for q, verdict in judged:
            number = int(q.id) % _ROTATION
            hits[number] = min(hits.get(number, 1.0), float(bool(verdict.score)))
        counted = ((q, hits.pop(int(q.id) % _ROTATION, None)) for q, _ in judged)
        return [{"count": 0.0} if hit is None else {"score": hit, "count": 1.0} for _, hit in counted]

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """A missing answer is an empty cell of the upload, which the tool reads as the text "nan"; a group without its
        unrotated row is left out."""
        latest = {q.id: record["text"] for q, record in found if q is not None}
        main = {int(q.id) for q in questions if int(q.id) < _ROTATION}
        kept = [q for q in questions if int(q.id) % _ROTATION in main]
        return Counted(*self.summarize([(q, self.judge(q, latest.get(q.id, "nan"))) for q in kept]))

    def submission(self, data: Path, latest: Latest) -> bytes:
        """The upload, as ``convert_mmbench_for_submission.py`` writes it."""
        rows = self._rows(data)
        names = [name for name in rows[0] if name not in _LEFT_OUT and name != "prediction"]
        names.insert(6, "prediction")
        texts = {id: record["text"] for id, record in latest.items()}
        table = [row | {"index": int(row["index"]), "prediction": texts.get(str(row["index"]))} for row in rows]
        return workbook(names, [[row[name] for name in names] for row in table])

    def record(self, question: Question) -> dict[str, Any]:
        prompt = text_of(question).removeprefix("<image>\n").removesuffix(f"\n{self.letter}")
        return {"question_id": int(question.id), "round_id": 0, "prompt": prompt}


def _asked(row: Mapping[str, Any]) -> str:
    options = []
    for letter in "ABCD":
        if not row.get(letter) or str(row[letter]).lower() in ("nan", "none"):
            break
        options.append(f"{letter}. {row[letter]}")
    hint = row.get("hint") or ""
    return "\n".join([*([hint] if hint else []), row["question"], *options])


def _kinds(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("category", "l2-category", "L2-category")
    return tuple(str(row[name]) for name in names if row.get(name))


BENCHMARK = MMBench()
