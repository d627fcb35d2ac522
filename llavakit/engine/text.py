"""Token ids -> text as they come: whole characters only, the opening white space removed, stop strings obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class Writer:
    """The text of one answer. What :meth:`push` and :meth:`end` return, joined, is :attr:`text`.

    A character of several byte tokens comes with its last one. The end of the text is held back while it may still
    become a stop string; the first that is complete ends the text before it and sets :attr:`stopped`. ``after``: the
    last tokens of a text that is continued; then no white space is removed.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), after: Sequence[int] = ()) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._ids = list(after)
        self._raw = "".join(self._stream.step(self._backend, id) or "" for id in after)
        self._before = len(self._raw) if after else None
        self._shown = 0
        self.text = ""
        self.stopped = False

    def push(self, id: int) -> str:
        """Takes the next token; returns what may be shown now, often nothing."""
        self._ids.append(id)
        self._raw += self._stream.step(self._backend, id) or ""
        return self._show(held=True)

    def end(self) -> str:
        """No more tokens: the rest, an unfinished character as U+FFFD."""
        if not self.stopped:
            self._raw = self._backend.decode(self._ids, skip_special_tokens=True)
        return self._show(held=False)

    def _show(self, held: bool) -> str:
        if self.stopped:
            return ""
        text = self._raw.lstrip() if self._before is None else self._raw[self._before :]
        # A stop string may begin in what was held back, never in what was shown.
        found = [at for stop in self._stop if (at := text.find(stop, self._shown)) >= 0]
        if found:
            text = text[: min(found)]
            self.stopped = True
        shown = len(text) - (self._hold(text) if held and not found else 0)
        piece = text[self._shown : shown]
        self._shown = max(self._shown, shown)
        self.text = text
        return piece

    def _hold(self, text: str) -> int:
        """Length of the longest end of ``text`` with which a stop string begins."""
        longest = min(max((len(stop) for stop in self._stop), default=1) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stop)), 0)
