"""MME (arXiv:2306.13394): two yes/no questions a picture. A task's points are its accuracy and its share of pictures
with both right, each out of 100; the headline is perception (ten tasks), cognition (four) stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_jsonl
from llavakit.chat.conversation import question
from llavakit.eval.benchmark import (
    Benchmark,
    Counted,
    Found,
    Judged,
    OfficialStops,
    Question,
    Tally,
    Verdict,
    mean,
    no_strangers,
    ratio,
)
from llavakit.eval.prompts import SHORT
from llavakit.eval.source import find_all, find_optional, image_finder, is_parquet, parquet_rows
from llavakit.eval.yesno import yes_no_or_other

if TYPE_CHECKING:
    import numpy as np

_PERCEPTION = ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"]
_COGNITION = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]
_YES_NO = "Please answer yes or no."


class Mme(Benchmark):
    name = "mme"
    unit = "points"

    def read(self, data: Path, images: Path | None) -> list[Question]:
        """The release's folders (``existence/*.txt``, or ``questions_answers_YN`` below), in the order of LLaVA's
        ``llava_mme.jsonl`` where it is there."""
        if is_parquet(data, "*/questions_answers_YN/*.txt", "existence/*.txt"):
            rows = list(parquet_rows(data, "test*.parquet", shared="question_id"))
            return [
                self._question(r["category"], r["question_id"], r["question"], r["answer"], r["image"]) for r in rows
            ]
        truths = _truths(data)
        llava = find_optional(data, "llava_mme.jsonl")
        asked = read_jsonl(llava) if llava else []
        folder = next(iter(truths.values()))[1].parent
        image = image_finder(folder / "here", images, ("MME_Benchmark_release_version",))
        if not asked:
            return [
                self._question(task, (shown := _picture(path)), text, answer, image(shown))
                for (task, _, text), (answer, path) in truths.items()
            ]
        questions = []
        for item in asked:
            task, stem = _place(item["question_id"])
            text = _official_text(task, stem, item["text"], truths)
            if text is None:
                raise BadRequest(f"{llava}: the release in {folder} does not ask {item['text']!r} of {task}/{stem}")
            answer, _ = truths[task, stem, text]
            questions.append(self._question(task, item["question_id"], text, answer, image(item["image"])))
        return questions

    def _question(self, task: str, picture: str, text: str, answer: str, image: Any) -> Question:
        asked = f"{text.replace(_YES_NO, '').strip()}\n{SHORT}"
        truth = {"answer": answer.lower(), "picture": picture, "text": text}
        id = f"{task}/{Path(picture).stem}/{text}"
        return Question(id, question(asked, image, id=id, source=self.name), truth, task)

    def judge(self, question: Question, answer: str) -> Verdict:
        parsed = yes_no_or_other(answer)
        return Verdict(float(parsed == question.truth["answer"]), parsed, parsed == "other")

    def summarize(self, judged: Judged) -> tuple[float, dict[str, float]]:
        tasks: dict[str, dict[str, list[float]]] = {}
        for q, verdict in judged:
            task, picture = _of_picture(q)
            tasks.setdefault(task, {}).setdefault(picture, []).append(verdict.score)
        return _points({task: list(pictures.values()) for task, pictures in tasks.items()})

    def tally(self, judged: Judged) -> list[Tally]:
        """A picture, and whether all its answers are right, is counted with its first question."""
        pictures: dict[tuple[str, str], list[float]] = {}
        for q, verdict in judged:
            pictures.setdefault(_of_picture(q), []).append(verdict.score)
        tallies: list[Tally] = []
        for q, verdict in judged:
            scores = pictures.pop(_of_picture(q), None)
            own = {} if scores is None else {"both": float(sum(scores) == 2), "pictures": 1.0}
            own |= {"right": verdict.score, "asked": 1.0}
            tallies.append({f"{q.group} {name}": value for name, value in own.items()})
        return tallies

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        points = [
            ratio(sums[f"{t} right"], sums[f"{t} asked"]) + ratio(sums[f"{t} both"], sums[f"{t} pictures"])
            for t in _PERCEPTION
        ]
        return 100.0 * sum(points[1:], points[0])

    def official(self, questions: Sequence[Question], found: Found) -> Counted:
        """Two answers in a row of a task's file are taken for one picture's."""
        no_strangers(found)
        tasks: dict[str, list[float]] = {task: [] for task in (*_PERCEPTION, *_COGNITION)}
        for q, record in found:
            assert q is not None
            if any(mark in record["text"] for mark in "\t\n\r"):
                raise OfficialStops(f"an answer of {q.group} holds a tab or a line's end")
            tasks.setdefault(q.group, []).append(self.judge(q, record["text"]).score)
        for task in (*_PERCEPTION, *_COGNITION):
            if not tasks[task] or len(tasks[task]) % 2:
                raise OfficialStops(f"task {task} has {len(tasks[task])} answers, not pairs")
        return Counted(
            *_points({task: [list(pair) for pair in zip(s[::2], s[1::2], strict=True)] for task, s in tasks.items()})
        )

    def record(self, question: Question) -> dict[str, Any]:
        return super().record(question) | {"question_id": question.truth["picture"]}

    def finder(self, questions: Sequence[Question]) -> Callable[[Mapping[str, Any]], str | None]:
        """LLaVA's ``question_id`` is the picture's: the prompt tells which of its questions was asked."""
        truths = {(q.group, Path(q.truth["picture"]).stem, q.truth["text"]): q.id for q in questions}

        def find(record: Mapping[str, Any]) -> str | None:
            task, stem = _place(str(record["question_id"]))
            text = _official_text(task, stem, str(record.get("prompt", "")), truths)
            return None if text is None else truths[task, stem, text]

        return find


def _of_picture(question: Question) -> tuple[str, str]:
    return question.group, Path(question.truth["picture"]).stem


def _points(tasks: Mapping[str, Sequence[Sequence[float]]]) -> tuple[float, dict[str, float]]:
    points = {
        task: 100.0 * mean(score for pair in pairs for score in pair) + 100.0 * mean(sum(pair) == 2 for pair in pairs)
        for task, pairs in tasks.items()
    }
    perception, cognition = (sum(points.get(task, 0.0) for task in group) for group in (_PERCEPTION, _COGNITION))
    return perception, {"perception": perception, "cognition": cognition, "total": perception + cognition} | points


def _truths(data: Path) -> dict[tuple[str, str, str], tuple[str, Path]]:
    """``(task, file's stem, question) -> (answer, file)`` of the release found in ``data``."""
    first = next((path for task in (*_PERCEPTION, *_COGNITION) for path in _folders(data, task)), None)
    if first is None:
        names = "existence/*.txt or existence/questions_answers_YN/*.txt"
        raise BadRequest(f"no {names} in {data} or up to two folders below; put MME_Benchmark_release_version there")
    truths = {}
    for task in (*_PERCEPTION, *_COGNITION):
        folder = first.parent / task
        texts = folder / "questions_answers_YN"
        for path in sorted((texts if texts.is_dir() else folder).glob("*.txt")):
            for line in path.read_text(encoding="utf-8-sig").strip().split("\n"):
                text, tab, answer = line.strip().partition("\t")
                if not tab or answer.lower() not in ("yes", "no"):
                    raise BadRequest(f"{path}: {line!r} is not a question, a tab and Yes or No")
                truths[task, path.stem, text] = (answer, folder / path.name)
    return truths


def _folders(data: Path, task: str) -> list[Path]:
    texts = find_all(data, f"{task}/*.txt") or find_all(data, f"{task}/questions_answers_YN/*.txt")
    return [path.parent if path.parent.name == task else path.parent.parent for path in texts[:1]]


def _picture(path: Path) -> str:
    """The picture of a text file as LLaVA names it, ``task/images/name.jpg`` or ``task/name.png``."""
    folder, task = path.parent, path.parent.name
    below = "images/" if (folder / "questions_answers_YN").is_dir() else ""
    there = (ending for ending in (".jpg", ".png") if (folder / f"{below}{path.stem}{ending}").is_file())
    return f"{task}/{below}{path.stem}{next(there, '.jpg')}"


def _place(question_id: str) -> tuple[str, str]:
    return question_id.split("/")[0], question_id.split("/")[-1].split(".")[0]


def _official_text(task: str, stem: str, prompt: str, known: Mapping[tuple[str, str, str], Any]) -> str | None:
    """The release's own question for a prompt, as ``convert_answer_to_mme.py`` finds it."""
    if SHORT in prompt:
        prompt = prompt.replace(SHORT, "").strip()
    texts = [prompt] if _YES_NO in prompt else [f"{prompt} {_YES_NO}", f"{prompt}  {_YES_NO}"]
    return next((text for text in texts if (task, stem, text) in known), None)


BENCHMARK = Mme()
