"""What makes a teacher's answer unfit to train on. Each rule is a function that raises :class:`Rejected`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from llavakit.teacher.context import Context

Dialogue = Sequence[tuple[str, str]]
"""Questions and answers, in the order in which they are held."""

ALIKE = 0.9  # of two questions' words, in order: above it they ask the same
COPIED = 4  # words in a row of a caption that a question must not repeat
TOLD = 6  # different words of the captions that a question must not contain
RESTATED = 0.75  # of an answer's words that may stand in its question


class Rejected(Exception):
    """``rule`` names what was broken, for counting; the message says how, for the teacher and for a person."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


def lengths(texts: Iterable[str], least: int, most: int, what: str) -> None:
    """Each text has ``least`` to ``most`` words."""
    for text in texts:
        if not least <= len(text.split()) <= most:
            raise Rejected("length", f"the {what} has {len(text.split())} words, not {least} to {most}: {_short(text)}")


def no_source(texts: Iterable[str]) -> None:
    """Nothing is said of captions, boxes or coordinates: who answers is to see the picture."""
    for text in texts:
        if found := _SOURCE.search(text):
            raise Rejected("names its source", f"{found.group()!r} in: {_short(text)}")


def no_excuse(texts: Iterable[str]) -> None:
    """No talk of being a language model that cannot see."""
    for text in texts:
        if found := _EXCUSE.search(text):
            raise Rejected("excuse", f"{found.group()!r} in: {_short(text)}")


def definite(dialogue: Dialogue) -> None:
    """Questions that the picture answers for certain, and answers that are certain."""
    for question, answer in dialogue:
        if found := _GUESS.search(question):
            raise Rejected("indefinite question", f"{found.group()!r} in: {_short(question)}")
        if found := _DOUBT.search(answer):
            raise Rejected("indefinite answer", f"{found.group()!r} in: {_short(answer)}")


def no_repeats(dialogue: Dialogue) -> None:
    """No two questions ask the same in other words."""
    asked = [(question, words(question)) for question, _ in dialogue]
    for i, (question, these) in enumerate(asked):
        for other, those in asked[:i]:
            if these == those or SequenceMatcher(None, these, those, autojunk=False).ratio() > ALIKE:
                raise Rejected("near-duplicate questions", f"{_short(other)} / {_short(question)}")


def no_leak(question: str, answer: str, context: Context) -> None:
    """The question neither copies what a caption says, nor describes the picture, nor holds its own answer."""
    asked = words(question)
    for caption in context.captions:
        told = words(caption)
        same = SequenceMatcher(None, asked, told, autojunk=False).find_longest_match()
        if same.size >= COPIED:
            raise Rejected(
                "leak", f"the question repeats a caption ({' '.join(asked[same.a :][: same.size])}): {_short(question)}"
            )
    shown = {word for caption in context.captions for word in words(caption)}
    told = [word for word in dict.fromkeys(words(question)) if word in shown]
    if len(told) >= TOLD:
        raise Rejected("leak", f"the question tells what the picture shows ({', '.join(told)}): {_short(question)}")
    said = set(words(answer))
    if said and len(said & set(words(question))) > RESTATED * len(said):
        raise Rejected("leak", f"the answer only repeats the question: {_short(answer)}")


def words(text: str) -> list[str]:
    """The words that carry meaning, in order, in lower case and without a plural's s."""
    found = re.findall(r"[^\W_]+", text.lower().replace("'s", "").replace("which", "what").replace("colour", "color"))
    return [_singular(word) for word in found if word not in _EMPTY]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:117]}...")


_GIVEN = r"(?:given|provided|supplied|above|accompanying|these|those|the|this|each|your|several|five|all)"
_SOURCE = re.compile(
    # No caption of a picture's own (a newspaper's) is told from the source; losing a few such answers is cheap.
    r"\bcaptions?\b|\bbounding[ -]?box(?:es)?\b|\bcoordinates?\b|\bannotations?\b|\bobject detect\w+"
    rf"|\b{_GIVEN} (?:\w+ )?(?:descriptions?|sentences?|texts?|context|metadata|information|input) "
    r"(?:says?|said|mentions?|mentioned|states?|stated|describes?|indicates?|suggests?|provides?|provided|given"
    r"|lists?|tells?)\b"
    rf"|\b(?:according to|based on|from|in) {_GIVEN} (?:\w+ )?(?:descriptions?|sentences?|context|metadata|input)\b"
    r"|\b(?:based on|according to) (?:the |this )?(?:given|provided) \w+"
    r"|\[\s*[01]?\.\d+\s*,|\b0\.\d{2,}\s*,\s*0\.\d{2,}",
    re.IGNORECASE,
)
_EXCUSE = re.compile(
    r"\bas an? (?:ai|artificial|language|text)\b|\blanguage model\b|\bi (?:can(?:no|')t|am unable to|am not able to) "
    r"(?:see|view|access|look)|\bi do(?: not|n't) have (?:access|visual)|\bi(?:'m| am) sorry\b",
    re.IGNORECASE,
)
_GUESS = re.compile(
    r"\b(?:might|likely|probably|possibly|perhaps|maybe|presumably|do you think|can you guess|would you guess"
    r"|do you suppose|could (?:have been|be the (?:reason|purpose))|what (?:may|could)|why (?:may|could|would))\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:unclear|uncertain|unknown|unsure|undetermined|indeterminate|probably|possibly|perhaps|maybe|presumably"
    r"|(?:is|are|it's|was|were) (?:not|n't) (?:clear|certain|possible to|specified|mentioned|stated|known|given|told)"
    r"|isn't (?:clear|certain|possible to|specified|mentioned|stated|known)|not (?:explicitly )?(?:mentioned|specified)"
    r"|can(?:no|')t (?:be (?:determined|told|said|known)|determine|tell|say|know)|can not be determined"
    r"|(?:hard|difficult|impossible) to (?:say|tell|determine|know)|no (?:information|way to (?:know|tell))"
    r"|(?:might|may|could) (?:be|have))\b",
    re.IGNORECASE,
)
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        """a an the this that these those is are was were be been being do does did has have had of in on at to for from
        by with and or as it its there here what who whose image picture photo photograph scene shown show seen see
        visible depicted appear one can could you please tell me describe any some while""",
    )
)
