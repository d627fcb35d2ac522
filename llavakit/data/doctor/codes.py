"""What can be wrong with a data set: each kind of finding, how grave it is, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Code:
    """``error``: training would stop at it or learn what it must not; ``warning``: look at it; ``note``: know of it."""

    grade: Grade
    means: str


CODES: dict[str, Code] = {
    "broken-json": Code("error", "no record can be read here"),
    "not-a-record": Code("error", 'no {"conversations": [{"from", "value"}, ...]}, or its "image" is no name'),
    "unknown-speaker": Code("error", "a turn is from nobody that is known"),
    "turn-order": Code("error", "person and model do not take turns, the person first"),
    "unanswered": Code("error", "the last word is not the model's: nothing to learn"),
    "empty-answer": Code("error", "the model is to learn to say nothing"),
    "image-count": Code("error", "the text has more or fewer <image> than the record has images"),
    "image-in-answer": Code("error", "<image> stands in an answer"),
    "refused": Code("error", "training refuses it for another reason"),
    "no-room": Code("error", "cut to the maximum length, an image is split or nothing is left to learn"),
    "missing-image": Code("error", "the file is not there"),
    "truncated-image": Code("error", "the file ends early"),
    "unreadable-image": Code("error", "the file is no picture, or too large"),
    "leak": Code("error", "a benchmark's question about that benchmark's image"),
    "wrong-type": Code(
        "warning", "the content is of another type than the name says; not every reader goes by content"
    ),
    "too-long": Code("warning", "longer than the maximum length: training cuts its end away"),
    "duplicate": Code("warning", "the same images and the same text as an earlier record"),
    "benchmark-image": Code("warning", "shows a benchmark's image, the same file or one that looks the same"),
    "benchmark-question": Code("note", "asks a question that a benchmark asks too, about another image"),
    "near-duplicate": Code("note", "an image that looks the same as another"),
}


@dataclass(frozen=True)
class Problem:
    """One finding. ``line`` where the record begins in its file, from 1; ``index`` is the record's number from 0."""

    code: str
    file: str
    line: int
    index: int
    id: str
    detail: str

    @property
    def grade(self) -> Grade:
        return CODES[self.code].grade
