"""How MMBench's own tool finds the option in an answer without a judge: ``matching_util.py`` of VLMEvalKit (2026), its
``exact_matching`` mode. Its faults are its own: "the answer is beautiful" is B."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
NONE_OF_THEM = "Z"


def infer_option(answer: str, choices: Mapping[str, str]) -> str:
    """The letter of ``choices`` (letter -> text) that an answer means, Z where it means none of them, "" where nothing
    was found."""
    if "Failed to obtain answer via API" not in answer:
        if any(refusal in answer for refusal in _REFUSALS):
            return NONE_OF_THEM
        words = answer.translate(_MARKS).split()
        named = [letter for letter in choices if letter in words]
        if len(named) == 1 and words.index(named[0]) > len(words) - 5:
            return named[0]
        if not named and NONE_OF_THEM in words:
            return NONE_OF_THEM
        if (stated := _STATED.search(answer)) and stated.group(1).upper() in choices:
            return stated.group(1).upper()
    return _by_text(answer.lower(), choices)


def _by_text(answer: str, choices: Mapping[str, str]) -> str:
    if len(answer) > 2 * sum(map(len, choices.values())):
        return ""
    quoted = [letter for letter, text in choices.items() if text.lower() in answer]
    return quoted[0] if len(quoted) == 1 else ""
