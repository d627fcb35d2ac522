"""How an answer to a question of one's own is judged: one function a metric, all in :data:`METRICS`.

Each takes the answer and the question's truth (``answers``, and ``others`` or ``pattern`` where it needs them).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llavakit.eval.benchmark import Verdict
from llavakit.eval.choice import OPTIONS, letter

Box = tuple[float, float, float, float]

_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
_WORD = re.compile(r"\w+")
_END = re.compile(r"[\s.]+$")


def plain_answer(text: str) -> str:
    """Lower-cased, without white space around it and periods at its end."""
    return _END.sub("", text.strip()).lower()


def read_box(text: str) -> Box | None:
    """The first four numbers of a text, None where there are fewer."""
    numbers = [float(number) for number in _NUMBER.findall(text)[:4]]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two ``(x1, y1, x2, y2)``; a box turned inside out has no area."""
    inside = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - inside
    return inside / union if union > 0 else 0.0


def overlap(said: Iterable[str], meant: Iterable[str]) -> float:
    """F1 of two multisets; two empty ones agree."""
    said, meant = Counter(said), Counter(meant)
    total = said.total() + meant.total()
    return 2 * (said & meant).total() / total if total else 1.0


def _exact(answer: str, truth: Mapping[str, Any]) -> Verdict:
    parsed = plain_answer(answer)
    return Verdict(float(parsed in map(plain_answer, truth["answers"])), parsed)


def _contains(answer: str, truth: Mapping[str, Any]) -> Verdict:
    right = [text for text in truth["answers"] if _holds(answer, text)]
    wrong = [text for text in truth["others"] if _holds(answer, text)]
    return Verdict(float(bool(right) and not wrong), ", ".join(right + wrong))


def _phrases(answer: str, truth: Mapping[str, Any]) -> Verdict:
    said = [_folded(match.group()) for match in re.finditer(truth["pattern"], answer, re.IGNORECASE)]
    return Verdict(overlap(said, map(_folded, truth["answers"])), "; ".join(said))


def _box(answer: str, truth: Mapping[str, Any]) -> Verdict:
    said, meant = read_box(answer), read_box(truth["answers"][0])
    if said is None or meant is None:
        return Verdict(0.0, "")
    return Verdict(float(iou(said, meant) >= 0.5), str(list(said)))


def _choice(answer: str, truth: Mapping[str, Any]) -> Verdict:
    parsed = letter(answer, OPTIONS)
    return Verdict(float(parsed in truth["answers"]), parsed)


def _words(answer: str, truth: Mapping[str, Any]) -> Verdict:
    said = _WORD.findall(answer.lower())
    score = max(overlap(said, _WORD.findall(text.lower())) for text in truth["answers"])
    return Verdict(score, " ".join(said))


def _open(answer: str, truth: Mapping[str, Any]) -> Verdict:
    return Verdict(0.0, answer)


METRICS: dict[str, Callable[[str, Mapping[str, Any]], Verdict]] = {
    "exact": _exact,
    "contains": _contains,
    "phrases": _phrases,
    "box": _box,
    "choice": _choice,
    "words": _words,
    "open": _open,
}
"""``open``: asked and recorded, not scored."""


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _holds(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
