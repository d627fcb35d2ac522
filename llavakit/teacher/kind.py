"""Kind: one sort of instruction data. How it is asked for, how an answer is read, and what makes it unfit."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llavakit.base.errors import BadRequest
from llavakit.base.registry import Registry
from llavakit.chat.conversation import IMAGE
from llavakit.teacher.check import Dialogue, Rejected, no_excuse, no_source
from llavakit.teacher.context import Context

KINDS = Registry("llavakit.teacher.kinds", "KIND", "kind of instruction data")


@dataclass(frozen=True)
class Kind(ABC):
    """Base of all kinds; one in each file of ``teacher/kinds/``.

    ``system``: what the teacher is to do; ``examples``: contexts and the answers that they should get. ``boxes``:
    whether the context has them; ``sees``: whether the teacher gets the picture too; ``typical``, ``most``: tokens of
    an answer, for the estimate and as the limit.
    """

    system: str
    examples: tuple[tuple[Context, str], ...] = ()
    boxes: bool = False
    sees: bool = False
    typical: int = 250
    most: int = 1024

    name: ClassVar[str]

    @abstractmethod
    def read(self, text: str, context: Context) -> Dialogue:
        """Questions and answers in a teacher's answer. Raises :class:`~llavakit.teacher.check.Rejected` for another
        format."""

    @abstractmethod
    def check(self, dialogue: Dialogue, context: Context) -> None:
        """Raises :class:`~llavakit.teacher.check.Rejected` when the dialogue is unfit in this kind's own way."""

    def accept(self, text: str, context: Context) -> Dialogue:
        """The dialogue of an answer that is fit. Raises :class:`~llavakit.teacher.check.Rejected`."""
        dialogue = self.read(text, context)
        said = [text for pair in dialogue for text in pair]
        if any(IMAGE in text for text in said):
            raise Rejected("format", f"{IMAGE} stands in the text")
        no_source(said)
        no_excuse(answer for _, answer in dialogue)
        self.check(dialogue, context)
        return dialogue

    def messages(self, context: Context, images: Path | None = None) -> list[dict[str, Any]]:
        """The messages that ask for it. ``images``: the folder of the pictures, for a teacher that sees.

        Raises :class:`BadRequest` when the context lacks what the kind needs.
        """
        if not self.sees and not context.captions:
            raise BadRequest(f"{self.name} needs captions, and {context.image} has none")
        said: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        for example, answer in self.examples:
            said.append({"role": "user", "content": example.text(self.boxes)})
            said.append({"role": "assistant", "content": answer})
        return [*said, {"role": "user", "content": self.told(context, images)}]

    def told(self, context: Context, images: Path | None) -> str | list[dict[str, Any]]:
        """The content of the message about the picture itself."""
        return context.text(self.boxes)

    @property
    def prompt_hash(self) -> str:
        """16 hexadecimal digits of all that is the same for every picture."""
        shared = [self.system, [(example.text(self.boxes), answer) for example, answer in self.examples], self.most]
        return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:16]


def of_name(name: str) -> Kind:
    """The kind of that name. Raises :class:`BadRequest` with the nearest name and all names when there is none."""
    kind = KINDS[name]
    assert isinstance(kind, Kind)
    return kind
