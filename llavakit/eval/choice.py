"""The letter of a multiple-choice answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

OPTIONS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


_STATED = re.compile("The answer is ([A-Z]).")


def stated_letter(answer: str, options: str) -> str:
    """As ``eval_science_qa.py`` of haotian-liu/LLaVA reads: the letter alone, "X. ...", or the only "The answer is X"
    that any character but a line's end follows; else "". May be a letter beyond a question's own choices."""
    if len(answer) == 1 and answer in options:
        return answer
    if answer[1:3] == ". " and answer[0] in options:
        return answer[0]
    stated: list[str] = _STATED.findall(answer)
    return stated[0] if len(stated) == 1 else ""


def letter(answer: str, options: str) -> str:
    """The chosen letter of ``options``, or "": the letter alone, "X. ...", "The answer is X.", "The answer is X"."""
    answer = answer.replace("\n", ". ")
    alone = answer.strip()
    if len(alone) == 1 and alone in options:
        return alone
    if answer[1:3] == ". " and answer[0] in options:
        return answer[0]
    # Two passes: a later "The answer is B." goes before an earlier "The answer is Because".
    for pattern in (rf"The answer is ([{options}])\.", rf"The answer is ([{options}])"):
        if match := re.search(pattern, answer):
            return match.group(1)
    return ""


def lettered(choices: Sequence[str]) -> str:
    """The choices one a line: "A. first"."""
    return "\n".join(f"{option}. {choice}" for option, choice in zip(OPTIONS, choices, strict=False))
