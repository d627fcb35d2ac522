"""In what order a benchmark's questions are asked, by which process, and what picture each is about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llavakit.eval.benchmark import Question


@dataclass(frozen=True)
class Share:
    """Which of ``world`` processes this is; they share the work by picture, and need nothing but a common disk."""

    rank: int = 0
    world: int = 1


ALONE = Share()


def by_image(questions: Sequence[Question]) -> list[list[Question]]:
    """The questions, those about the same pictures together; else as they were."""
    groups: dict[tuple[object, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(_key(question), []).append(question)
    return list(groups.values())


def share_of(questions: Sequence[Question], share: Share) -> list[Question]:
    """What one process asks, in its order: every ``world``-th picture. A function of the questions alone, so that
    processes that start at different times, on what others left, never ask the same one."""
    groups = by_image(questions)[share.rank :: share.world]
    return [question for group in groups for question in group]


def picture_names(questions: Sequence[Question]) -> dict[str, str]:
    """Question id -> a name of what is shown: the file, from the folder that holds all of them; ``#n`` for the n-th
    picture that is in no file of its own; "" without a picture. The same on every machine with the same data."""
    refs = {id(ref.source): ref.source for question in questions for ref in question.conversation.images}
    files = {key: os.path.abspath(source) for key, source in refs.items() if isinstance(source, Path)}
    root = os.path.commonpath({os.path.dirname(file) for file in files.values()}) if files else ""
    loose = (key for key in refs if key not in files)
    names = {key: Path(os.path.relpath(file, root)).as_posix() for key, file in files.items()}
    names |= {key: f"#{number}" for number, key in enumerate(loose, 1)}
    return {q.id: " ".join(names[id(ref.source)] for ref in q.conversation.images) for q in questions}


def _key(question: Question) -> tuple[object, ...]:
    sources = [ref.source for ref in question.conversation.images]
    if not sources:  # one group of them all would be one process's work
        return (None, question.id)
    return tuple(str(source) if isinstance(source, Path) else id(source) for source in sources)
