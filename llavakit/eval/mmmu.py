"""How MMMU's own tool reads answers (``eval_utils.py`` of MMMU-Benchmark/MMMU). Where it would guess a letter at
random, nothing is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_ENDS = (",", ".", "!", "?", ";", ":", "'")
_TRIVIAL = {*_ENDS, ""}
_SIGNS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)


def chosen_letter(answer: str, choices: Mapping[str, str]) -> str:
    """The letter of ``choices`` (letter -> text): "(A)", "A ", "A." or, in more than five words, a choice's text; of
    several the last. "" where there is none."""
    for end in _ENDS:
        answer = answer.strip(end)
    answer = f" {answer} "
    for form, sought in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [letter for letter in choices if form.format(letter) in answer]
        if named:
            return _last(named, [answer.rfind(sought.format(letter)) for letter in named])
    if len(answer.split()) > 5:
        lowered = answer.lower()
        named = [letter for letter, text in choices.items() if text.lower() in lowered]
        return _last(named, [lowered.rfind(choices[letter].lower()) for letter in named])
    return ""


def open_answer_right(answer: str, right: str | Sequence[str]) -> bool:
    """Whether one of the statements or numbers in a free answer is right."""
    wanted = {form for text in ([right] if isinstance(right, str) else right) for form in _forms(text)}
    said = {form for text in _statements(answer) for form in _forms(text)}
    texts = [form for form in wanted if isinstance(form, str)]
    return any(form in wanted if isinstance(form, float) else any(t in form for t in texts) for form in said)


def _last(letters: Sequence[str], places: Sequence[int]) -> str:
    return max(zip(places, letters, strict=True), key=lambda pair: pair[0])[1] if letters else ""


def _statements(answer: str) -> list[str]:
    answer = answer.strip().strip(".").lower()
    lines = re.split(r"\.\s(?=[A-Z])|\n", answer)
    keys = []
    for number, line in enumerate(lines, 1):
        signs = (*_SIGNS, "=") if number == len(lines) else _SIGNS
        tails = [line.split(sign)[-1].strip() for sign in signs if sign in line]
        shortest = _shortest(tails)
        if shortest not in _TRIVIAL:
            keys.append(shortest)
    keys = keys or [answer]
    return keys + [number for key in keys for pattern in _NUMBERS for number in re.findall(pattern, key)]


def _shortest(tails: Iterable[str]) -> str:
    """The shortest, the first of equals; one that is empty gives way to any that follows."""
    best = ""
    for tail in tails:
        if not best or len(tail) < len(best):
            best = tail
    return best


def _forms(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
