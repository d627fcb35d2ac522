"""The certificate of a checkpoint over engines: the same greedy answers to the same questions, in float32.

Two engines add in different orders, so where the two best tokens are nearly equal either may win. A difference at such
a place is counted as a tie, apart from the others, and every difference is written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llavakit import __version__
from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import Conversation, ImageRef, question
from llavakit.engine.engine import Engine
from llavakit.engine.request import Piece
from llavakit.engine.sample import Decoding
from llavakit.model.encode import encode

ASKED = (
    "What is in this picture?",
    "Describe the picture in one sentence.",
    "How many things are there?",
    "What colour is the largest thing?",
    "Is there a person in the picture? Answer the question using a single word or phrase.",
    "What stands at the top left?",
    "What is written in the picture?",
    "What lies behind the nearest thing?",
    "Why might somebody have made this picture?",
    "What could happen next?",
)
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
TIE = 1e-3
"""Natural logarithms of the two best tokens' probabilities that are nearer than this are a tie. Wider for an engine
that computes some of it in 16 bits whatever one asks."""


@dataclass(frozen=True)
class Difference:
    """Where an engine's answer parts from ours. ``margin``: the least by which ours preferred a token up to there."""

    question: str
    image: str
    ours: str
    theirs: str
    margin: float


@dataclass(frozen=True)
class Row:
    """One engine of the certificate. ``said`` is what a table shows: counts, or why the engine did not run.
    ``broke``: it was there, and failed at its work."""

    engine: str
    version: str
    said: str
    same: int = 0
    ties: int = 0
    different: int = 0
    differences: tuple[Difference, ...] = ()
    note: str = ""
    tie: float = TIE
    broke: bool = False

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Answered:
    """Our answer, and after each of its tokens: how long the text then was, and by how much its token was preferred."""

    text: str
    steps: tuple[tuple[int, float], ...]


def questions(folder: str | Path, count: int) -> list[Conversation]:
    """``count`` different questions about the pictures of a folder, the same for the same files.

    Raises :class:`BadRequest` when there are too few pictures."""
    found = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(found) * len(ASKED) < count:
        least = -(-count // len(ASKED))
        raise BadRequest(f"{folder} holds {len(found)} pictures, and {count} questions need at least {least}")
    asked = []
    for number in range(count):
        turn, picture = divmod(number, len(found))
        text = ASKED[(turn + picture) % len(ASKED)]
        asked.append(question(text, ImageRef(found[picture]), id=str(number), source=str(folder)))
    return asked


def answered(engine: Engine, asked: Iterable[Conversation], how: Decoding) -> list[Answered]:
    """Our greedy answers, and how sure each token of them was."""
    examples = (encode(conversation, engine.codec, prompt=True) for conversation in asked)
    return [_answered(pieces) for pieces in engine.replies(examples, how, logprobs=2)]


def _answered(pieces: Sequence[Piece]) -> Answered:
    text, steps = "", []
    for piece in pieces:
        text += piece.text
        for token in piece.logprobs or ():
            best = [other.logprob for other in token.top]
            steps.append((len(text), best[0] - best[1]))
    return Answered(text, tuple(steps))


def compared(
    engine: str,
    version: str,
    asked: Sequence[Conversation],
    ours: Sequence[Answered],
    theirs: Sequence[str],
    note: str = "",
    tie: float = TIE,
) -> Row:
    """An engine's row, from its answers in the order of the questions."""
    found = []
    for conversation, answer, other in zip(asked, ours, theirs, strict=True):
        mine, its = _plain(answer.text), _plain(other)
        if mine != its:
            margin = _margin(answer, mine, its)
            name = Path(str(conversation.images[0])).name if conversation.images else ""
            found.append(Difference(conversation.turns[0].text, name, mine, its, margin))
    ties = sum(difference.margin < tie for difference in found)
    same = len(asked) - len(found)
    said = f"{same} of {len(asked)} the same"
    said += f", {ties} tied (nearer than {tie:g})" if ties else ""
    said += f", {len(found) - ties} different" if len(found) > ties else ""
    said += f"; {note}" if note else ""
    return Row(engine, version, said, same, ties, len(found) - ties, tuple(found), note, tie)


def _plain(text: str) -> str:
    # A character that the limit of tokens cut in two is shown by one engine and not by another. Its halves may have
    # white space between them.
    text = text.strip()
    while text != (shorter := text.rstrip("\ufffd").rstrip()):
        text = shorter
    return text


def _margin(answer: Answered, mine: str, its: str) -> float:
    parted = next((i for i, (a, b) in enumerate(zip(mine, its, strict=False)) if a != b), min(len(mine), len(its)))
    parted += len(answer.text) - len(answer.text.lstrip())
    # The token that holds the first other character, and the one after it, where a character spans several.
    last = next((n for n, (length, _) in enumerate(answer.steps) if length > parted), len(answer.steps) - 1)
    return min((margin for _, margin in answer.steps[: last + 1]), default=0.0)


def certificate(rows: Sequence[Row], asked: int, how: Decoding) -> dict[str, Any]:
    """What ``engines.json`` says."""
    return {
        "what": "greedy answers in float32 of other engines, beside llavakit's",
        "llavakit": __version__,
        "questions": asked,
        "max_new_tokens": how.max_new_tokens,
        "engines": [row.plain() for row in rows],
    }
