"""Source: numbered records that become conversations. What a mixture is made of."""

from __future__ import annotations

from typing import Protocol

from llavakit.chat.conversation import Conversation


class Source(Protocol):
    """``len`` records; ``source[i]`` gives record i as a checked Conversation.

    Raises :class:`~llavakit.base.errors.BadRecord`, naming file, index and id, for a record that cannot be used;
    the same record fails the same way every time.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Conversation: ...
