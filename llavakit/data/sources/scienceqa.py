"""ScienceQA (arXiv:2209.09513) for fine-tuning: question, context, choices in; lecture, explanation, answer out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavakit.base.files import read_json
from llavakit.chat.conversation import IMAGE
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import image_folder
from llavakit.eval.choice import OPTIONS


class ScienceQAOptions(Options):
    folder: str = "ScienceQA/images/train"
    splits: tuple[str, ...] = ("train",)


class ScienceQA(Reader[ScienceQAOptions]):
    """The format of LLaVA's own fine-tuning (QCM in, lecture and explanation before the answer out)."""

    name = "scienceqa"
    files = ("problems.json", "pid_splits.json")
    get = "https://github.com/lupantech/ScienceQA (data/scienceqa and the images of the training split)"
    options = ScienceQAOptions

    def read(self, data: Path, options: ScienceQAOptions, dropped: Dropped) -> Talks:
        problems, splits = (read_json(file_of(data, name)) for name in self.files)
        talks = []
        for split in options.splits:
            for id in splits[split]:
                problem = problems[id]
                asked = f"{qcm(problem)}\n{IMAGE}" if problem["image"] else qcm(problem)
                images = (f"{id}/{problem['image']}",) if problem["image"] else ()
                talks.append(Talk(id, images=images).exchange(asked, lecture_explanation_answer(problem)))
        return talks

    def rules(self, options: ScienceQAOptions) -> Sequence[Rule]:
        return [image_folder(options.folder)]


def qcm(problem: dict[str, Any]) -> str:
    """The question, its context ("N/A" where there is none) and the choices in one line."""
    choices = " ".join(f"({option}) {choice}" for option, choice in zip(OPTIONS, problem["choices"], strict=False))
    context = problem["hint"].strip() or "N/A"
    return f"{problem['question']}\nContext: {context}\nOptions: {choices}".replace("  ", " ").strip()


def lecture_explanation_answer(problem: dict[str, Any]) -> str:
    """What there is of a lecture and an explanation, then a line "ANSWER: B."."""
    parts = [("LECTURE", problem["lecture"]), ("SOLUTION", problem["solution"])]
    reasons = "".join(f"{name}: {text}\n" for name, text in parts if text.strip())
    return f"{reasons}###\nANSWER: {OPTIONS[problem['answer']]}.".replace("  ", " ")


SOURCE = ScienceQA()
