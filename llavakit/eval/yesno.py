"""How POPE and MME read a yes/no answer, and POPE's metrics. Source: ``eval_pope.py`` of haotian-liu/LLaVA."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAID = re.compile(r"\b(yes|no|not)\b", re.IGNORECASE)


def yes_or_no(answer: str) -> str:
    """ "no" where the first sentence holds the word No, no or not; else "yes", whatever was said."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def yes_no_or_other(answer: str) -> str:
    """MME's reading (its ``calculation.py``): yes, or else no, within the first four characters, whatever the case;
    else "other"."""
    head = answer.lower()[:4]
    return next((word for word in ("yes", "no") if word in head), "other")


def says_neither(answer: str) -> bool:
    """Whether no yes, no or not stands anywhere in the answer, whatever :func:`yes_or_no` makes of it."""
    return _SAID.search(answer) is None


def yes_no_metrics(pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """F1, accuracy, precision, recall and the share of "yes", of (said, truth) pairs; "yes" is the positive class.

    A ratio with nothing under its line is 0. What is neither "yes" nor "no" (a missing answer) is wrong.
    """
    counts = {(said, truth): 0 for said in ("yes", "no", "") for truth in ("yes", "no")}
    for said, truth in pairs:
        counts[said, truth] += 1
    hits, passed = counts["yes", "yes"], counts["no", "no"]
    said_yes = hits + counts["yes", "no"]
    precision = _ratio(hits, said_yes)
    recall = _ratio(hits, hits + counts["no", "yes"] + counts["", "yes"])
    total = sum(counts.values())
    return {
        "f1": _ratio(2 * precision * recall, precision + recall),
        "accuracy": _ratio(hits + passed, total),
        "precision": precision,
        "recall": recall,
        "yes_ratio": _ratio(said_yes, total),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
