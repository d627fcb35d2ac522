"""Job: what is asked about which pictures, and how far the journal has come with each. A function of both alone."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import IMAGE
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.meter import Prices
from llavakit.endpoint.request import Reply, Request
from llavakit.teacher.check import Dialogue, Rejected
from llavakit.teacher.context import Context
from llavakit.teacher.kind import Kind

DEFAULTS = {"temperature": 0.7}  # variety is wanted; None takes it out, for models that know no temperature
AGAIN = "This cannot be used: {}. Write it anew, free of that fault, in the form that was asked for and nothing else."


@dataclass(frozen=True)
class Case:
    """One kind's question about one picture: the answers so far, why the first ones were unfit, and, once one was fit,
    its dialogue. ``request``: what is still to be asked, None when the case is closed."""

    kind: Kind
    context: Context
    replies: tuple[Reply, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    dialogue: Dialogue | None = None
    request: Request | None = None

    def record(self, prices: Prices | None) -> dict[str, Any]:
        """The dialogue in LLaVA's format; ``teacher`` says where it comes from."""
        assert self.dialogue is not None
        said = []
        for question, answer in self.dialogue:
            said += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        # Before the first question or after it, as in LLaVA's own files; by chance, but always the same.
        last = zlib.crc32(f"{self.kind.name}/{self.context.id}".encode()) % 2
        said[0]["value"] = f"{said[0]['value']}\n{IMAGE}" if last else f"{IMAGE}\n{said[0]['value']}"
        teacher = {
            "kind": self.kind.name,
            "model": self.replies[-1].model,
            "prompt": self.kind.prompt_hash,
            "asked": len(self.replies),
            "tokens": [sum(r.usage.prompt for r in self.replies), sum(r.usage.answer for r in self.replies)],
        }
        if prices:
            teacher["cost"] = round(sum(prices.of(reply.usage) for reply in self.replies), 8)
        return {"id": self.context.id, "image": self.context.image, "conversations": said, "teacher": teacher}


@dataclass(frozen=True)
class Job:
    """``body``: what every request holds beside its messages, ``model`` at least; a None takes a default out.
    ``images``: folder of the pictures, for a teacher that sees."""

    kinds: Sequence[Kind]
    contexts: Sequence[Context]
    body: Mapping[str, Any]
    images: Path | None = None

    def __len__(self) -> int:
        return len(self.kinds) * len(self.contexts)

    @property
    def about(self) -> dict[str, Any]:
        """What shapes every question: under another of these, answers in a journal would be to other questions."""
        return {**DEFAULTS, **self.body, **{f"prompt of {kind.name}": kind.prompt_hash for kind in self.kinds}}

    def cases(self, journal: Journal) -> Iterator[Case]:
        """Every case as it stands, kind by kind, in the order of the pictures."""
        return (self.case(kind, context, journal) for kind in self.kinds for context in self.contexts)

    def requests(self, journal: Journal, without: Collection[str] = ()) -> Iterator[Request]:
        """What is still to be asked, but for those keys."""
        for case in self.cases(journal):
            if case.request is not None and case.request.key not in without:
                yield case.request

    def case(self, kind: Kind, context: Context, journal: Journal) -> Case:
        """A case as it stands. What is unfit is asked again once, with the reason; then the case is closed."""
        try:
            messages = kind.messages(context, self.images)
        except BadRecord as error:
            return Case(kind, context, rejected=(Rejected("unusable picture", str(error)),))
        replies: tuple[Reply, ...] = ()
        rejected: tuple[Rejected, ...] = ()
        while len(replies) < 2:
            request = self._request(kind, messages)
            reply = journal[request.key]
            if reply is None:
                return Case(kind, context, replies, rejected, request=request)
            replies = (*replies, reply)
            try:
                if reply.finish == "length":
                    raise Rejected("cut", f"the answer was cut at {reply.usage.answer} tokens; say it in fewer words")
                return Case(kind, context, replies, rejected, kind.accept(reply.text, context))
            except Rejected as error:
                rejected = (*rejected, error)
                again = AGAIN.format(error)
                messages = [*messages, {"role": "assistant", "content": reply.text}, {"role": "user", "content": again}]
        return Case(kind, context, replies, rejected)

    def _request(self, kind: Kind, messages: list[dict[str, Any]]) -> Request:
        body = {"messages": messages, **DEFAULTS, "max_tokens": kind.most, **self.body}
        return Request({key: value for key, value in body.items() if value is not None})
