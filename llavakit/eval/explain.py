"""Answers that explain themselves: what in them is explanation."""

from __future__ import annotations

import re

_STATEMENT = re.compile(r"(?:(?:so|thus|therefore|hence),?\s+)?the answer is:?\s*\(?[A-Z]\)?(?!\w)\.?", re.IGNORECASE)


def explanation(answer: str) -> str:
    """What an answer says beside "The answer is X.", before or after it; "" where it states no answer or no reason.

    >>> explanation("Magnets attract iron. The answer is B.")
    'Magnets attract iron.'
    """
    rest, stated = _STATEMENT.subn(" ", answer)
    rest = rest.strip().removeprefix("BECAUSE:").strip()
    return rest if stated and re.search(r"\w\W+\w", rest) else ""
