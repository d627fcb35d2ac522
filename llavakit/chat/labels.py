"""Character spans x tokenizer offsets -> labels. Nothing is re-tokenised and nothing is counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llavakit.base.errors import BadRecord

IGNORE = -100


def supervise(
    ids: Sequence[int] | np.ndarray,
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[tuple[int, int]],
    text: str,
    where: str = "",
) -> np.ndarray:
    """``labels[i] == ids[i]`` where token i lies in a supervised span, else :data:`IGNORE`. int64 ``[len(ids)]``.

    ``offsets``: each token's half-open range of characters in ``text``, as a fast tokenizer gives it.
    Raises :class:`BadRecord`, naming the sample, when a token stands across the border of a span, or when a
    supervised character that is not white space belongs to no token: then labels could not be right.
    """
    token = np.asarray(ids, dtype=np.int64)
    ranges = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    labels = np.full(len(token), IGNORE, dtype=np.int64)
    covered = np.zeros(len(text), dtype=bool)
    for start, end in ranges:
        covered[start:end] = True
    for start, end in spans:
        overlap = np.minimum(ranges[:, 1], end) - np.maximum(ranges[:, 0], start)
        inside = overlap > 0
        across = inside & (overlap < ranges[:, 1] - ranges[:, 0])
        if across.any():
            first, last = ranges[int(np.argmax(across))]
            raise BadRecord(
                f"token {text[first:last]!r} stands across the border of supervised text {text[start:end][:40]!r}; "
                "the chat template does not suit this tokenizer",
                where,
            )
        missing = [text[i] for i in range(start, end) if not covered[i] and not text[i].isspace()]
        if missing:
            raise BadRecord(f"the tokenizer drops {''.join(missing)[:20]!r} of a supervised answer", where)
        labels[inside] = token[inside]
    return labels
