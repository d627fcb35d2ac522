"""Conversation, Turn, ImageRef: the one noun. Training, evaluation, chat and serving all speak in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llavakit.base.errors import BadRecord

IMAGE = "<image>"

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class ImageRef:
    """A picture that has not been opened: a path, encoded bytes, a function that gives them when they are needed, or an
    image already in memory (``PIL.Image``)."""

    source: Path | bytes | Any

    def __str__(self) -> str:
        return str(self.source) if isinstance(self.source, Path) else f"<{type(self.source).__name__}>"


@dataclass(frozen=True)
class Turn:
    """What one side says. Each ``<image>`` in a user's text stands for the conversation's next image."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns that alternate from the user on, and the images they speak of.

    ``system`` None means the template's own system text. ``id`` and ``source`` name the record in every error.
    """

    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...] = ()
    system: str | None = None
    id: str = ""
    source: str = ""
    tags: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def where(self) -> str:
        return f"{self.source or 'conversation'} id {self.id!r}" if self.id else self.source or "conversation"

    @property
    def answered(self) -> bool:
        """Whether the last word is the assistant's, as training needs."""
        return bool(self.turns) and self.turns[-1].role == "assistant"

    def checked(self) -> Conversation:
        """Itself, when sound. Raises :class:`BadRecord` when turns do not alternate, an answer is empty, ``<image>``
        stands outside a question, or its number is not the number of images."""
        if not self.turns:
            raise BadRecord("has no turns", self.where)
        for number, turn in enumerate(self.turns):
            expected = "assistant" if number % 2 else "user"
            if turn.role != expected:
                raise BadRecord(f"turn {number + 1} is {turn.role!r} where {expected!r} must speak", self.where)
            if turn.role == "assistant" and not turn.text.strip():
                raise BadRecord(f"turn {number + 1}, the assistant's answer, is empty", self.where)
            if turn.role == "assistant" and IMAGE in turn.text:
                raise BadRecord(f"turn {number + 1}: {IMAGE} stands in an assistant's answer", self.where)
        if self.system and IMAGE in self.system:
            raise BadRecord(f"{IMAGE} stands in the system text; a picture belongs to a question", self.where)
        marks = sum(turn.text.count(IMAGE) for turn in self.turns)
        if marks != len(self.images):
            raise BadRecord(
                f"has {marks} {IMAGE} in its text but {len(self.images)} image(s); each needs the other", self.where
            )
        return self

    def answer(self, text: str) -> Conversation:
        """The conversation with the assistant's answer appended."""
        return replace(self, turns=(*self.turns, Turn("assistant", text)))

    def ask(self, text: str) -> Conversation:
        """The conversation with a further question appended."""
        return replace(self, turns=(*self.turns, Turn("user", text)))


def question(text: str, *images: ImageRef, id: str = "", source: str = "") -> Conversation:
    """A first question about ``images``; ``<image>`` is put at its head, once for each, where the text has none."""
    if IMAGE not in text:
        text = f"{IMAGE}\n" * len(images) + text
    return Conversation((Turn("user", text),), images, id=id, source=source)
