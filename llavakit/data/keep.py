"""Keep: which records of a source take part."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, model_validator

from llavakit.base.config import Config


class Keep(Config):
    """Conditions that a record must meet, all of them; without any, every record takes part.

    A record that is unsound passes: it is for the reader of the source to refuse it, with its place."""

    sources: tuple[str, ...] = ()
    """Only records whose "source" is one of these (``llavakit data build`` writes it)."""
    pictured: bool | None = None
    """Only records with a picture (true) or without one (false)."""
    text: str | None = None
    """Only records in which some turn has a match of this regular expression."""
    without: str | None = None
    """Only records in which no turn has a match of this regular expression."""
    max_turns: int | None = Field(None, gt=1)

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        for pattern in (self.text, self.without):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return self

    def __call__(self, record: Any) -> bool:
        """Whether a record in LLaVA's format takes part."""
        if not isinstance(record, dict):
            return True
        turns = record.get("conversations")
        said = [str(t["value"]) for t in turns if "value" in t] if isinstance(turns, list) else []
        return (
            (not self.sources or record.get("source") in self.sources)
            and (self.pictured is None or bool(record.get("image")) == self.pictured)
            and (self.text is None or any(re.search(self.text, value) for value in said))
            and (self.without is None or not any(re.search(self.without, value) for value in said))
            and (self.max_turns is None or len(said) <= self.max_turns)
        )
