"""Exchange: one question and its true answer, used alike for training (the reply) and for testing (how to judge)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from llavakit.world.words import SHORT

Metric = Literal["exact", "contains", "phrases", "box", "choice"]


@dataclass(frozen=True)
class Exchange:
    """``text``: the whole prompt, without ``<image>``; ``reply``: the reference answer, as trained.

    ``answers``, ``others``, ``pattern`` are what ``metric`` judges by (``answers`` empty means the reply itself);
    ``novel``: whether what is asked about has a held-out combination; ``kind``: the sort of question.
    """

    text: str
    reply: str
    kind: str
    metric: Metric = "exact"
    answers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    pattern: str = ""
    novel: bool = False

    def short(self) -> Exchange:
        """With the short-answer prompt at the end."""
        return replace(self, text=f"{self.text}\n{SHORT}")

    def after(self, words: str) -> Exchange:
        """With ``words`` put before the question."""
        return replace(self, text=f"{words}{self.text}")

    def record(self, question_id: str, image: str | None) -> dict[str, Any]:
        """The line of a held-out question file."""
        record: dict[str, Any] = {"question_id": question_id, "image": image, "text": self.text}
        record |= {"metric": self.metric, "answers": list(self.answers or (self.reply,))}
        if self.others:
            record["others"] = list(self.others)
        if self.pattern:
            record["pattern"] = self.pattern
        return record | {"novel": self.novel, "kind": self.kind}


Dialogue = list[Exchange]
"""One conversation: exchanges in the order in which they are held."""
