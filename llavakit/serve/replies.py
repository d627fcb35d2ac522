"""Pieces of answers -> OpenAI's objects, whole or as a stream of events."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence

from pydantic import BaseModel

from llavakit.engine.request import Finish as Ending
from llavakit.engine.service import Piece, Ticket
from llavakit.engine.service import TokenLogprob as Logprob
from llavakit.serve.answering import Event
from llavakit.serve.refuse import Refused, refusal
from llavakit.serve.wire import (
    Answer,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    Choice,
    ChunkChoice,
    Completion,
    Delta,
    Error,
    Finish,
    TextChoice,
    TextLogprobs,
    TokenLogprob,
    TopLogprob,
    Usage,
)


class Reply:
    """One request's answers on their way: ``prompts`` questions, ``n`` answers of each, as ``tickets`` in order.

    A subclass says what OpenAI calls the parts. ``top``: how many alternatives of each token are shown; None shows no
    log-probabilities.
    """

    prefix: str

    def __init__(self, model: str, tickets: Sequence[Ticket], n: int, top: int | None) -> None:
        self.model, self.tickets, self.n, self.top = model, tickets, n, top
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self.created = int(time.time())

    def usage(self) -> Usage:
        prompt = sum(ticket.prompt_tokens for ticket in self.tickets[:: self.n])
        written = sum(ticket.completion_tokens for ticket in self.tickets)
        return Usage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written)

    async def whole(self, events: AsyncIterator[Event]) -> BaseModel:
        """The one object with all answers."""
        pieces: list[list[Piece]] = [[] for _ in self.tickets]
        async for number, piece in events:
            if piece is not None:
                pieces[number].append(piece)
        return self.complete(pieces)

    async def stream(self, events: AsyncIterator[Event], with_usage: bool) -> AsyncIterator[str]:
        """Server-sent events; a failure on the way is the last of them."""
        try:
            for number in range(len(self.tickets)):
                for opening in self.opening(number):
                    yield _event(opening)
            async for number, piece in events:
                if piece is None:
                    yield _event(self.ending(number, finish(self.tickets[number].finish)))
                elif piece.text or (piece.logprobs and self.top is not None):
                    yield _event(self.chunk(number, piece))
            if with_usage:
                yield _event(self.closing())
            yield "data: [DONE]\n\n"
        except Exception as error:  # the status is sent already
            yield _event(Error(error=refusal(error).body()))

    def complete(self, pieces: list[list[Piece]]) -> BaseModel:
        raise NotImplementedError

    def opening(self, number: int) -> list[BaseModel]:
        raise NotImplementedError

    def chunk(self, number: int, piece: Piece) -> BaseModel:
        raise NotImplementedError

    def ending(self, number: int, finish: Finish) -> BaseModel:
        raise NotImplementedError

    def closing(self) -> BaseModel:
        raise NotImplementedError


class ChatReply(Reply):
    prefix = "chatcmpl"

    def complete(self, pieces: list[list[Piece]]) -> ChatCompletion:
        choices = [
            Choice(
                index=number,
                message=Answer(content=_text(parts)),
                logprobs=self._logprobs(_logprobs(parts)),
                finish_reason=finish(self.tickets[number].finish),
            )
            for number, parts in enumerate(pieces)
        ]
        return ChatCompletion(id=self.id, created=self.created, model=self.model, choices=choices, usage=self.usage())

    def opening(self, number: int) -> list[BaseModel]:
        return [self._chunk([ChunkChoice(index=number, delta=Delta(role="assistant", content=""), finish_reason=None)])]

    def chunk(self, number: int, piece: Piece) -> ChatChunk:
        delta, logprobs = Delta(content=piece.text), self._logprobs(piece.logprobs or [])
        return self._chunk([ChunkChoice(index=number, delta=delta, logprobs=logprobs, finish_reason=None)])

    def ending(self, number: int, finish: Finish) -> ChatChunk:
        return self._chunk([ChunkChoice(index=number, delta=Delta(), finish_reason=finish)])

    def closing(self) -> ChatChunk:
        return self._chunk([], usage=self.usage())

    def _chunk(self, choices: list[ChunkChoice], **more: Usage) -> ChatChunk:
        return ChatChunk(
            id=self.id, object="chat.completion.chunk", created=self.created, model=self.model, choices=choices, **more
        )

    def _logprobs(self, tokens: Sequence[Logprob]) -> ChatLogprobs | None:
        if self.top is None:
            return None
        content = []
        for token in tokens:
            top = [_top(other) for other in token.top[: self.top]]
            content.append(TokenLogprob(**vars(_top(token)), top_logprobs=top))
        return ChatLogprobs(content=content)


class TextReply(Reply):
    prefix = "cmpl"

    def __init__(self, model: str, tickets: Sequence[Ticket], n: int, top: int | None) -> None:
        super().__init__(model, tickets, n, top)
        self._offsets = [0] * len(tickets)

    def complete(self, pieces: list[list[Piece]]) -> Completion:
        choices = [
            TextChoice(
                index=number,
                text=_text(parts),
                logprobs=self._logprobs(number, _logprobs(parts)),
                finish_reason=finish(self.tickets[number].finish),
            )
            for number, parts in enumerate(pieces)
        ]
        return self._completion(choices, usage=self.usage())

    def opening(self, number: int) -> list[BaseModel]:
        return []

    def chunk(self, number: int, piece: Piece) -> Completion:
        logprobs = self._logprobs(number, piece.logprobs or [])
        return self._completion([TextChoice(index=number, text=piece.text, logprobs=logprobs, finish_reason=None)])

    def ending(self, number: int, finish: Finish) -> Completion:
        return self._completion([TextChoice(index=number, text="", finish_reason=finish)])

    def closing(self) -> Completion:
        return self._completion([], usage=self.usage())

    def _completion(self, choices: list[TextChoice], **more: Usage) -> Completion:
        return Completion(
            id=self.id, object="text_completion", created=self.created, model=self.model, choices=choices, **more
        )

    def _logprobs(self, number: int, tokens: Sequence[Logprob]) -> TextLogprobs | None:
        if self.top is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[number])
            self._offsets[number] += len(token.token)
        return TextLogprobs(
            tokens=[token.token for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[{other.token: other.logprob for other in token.top[: self.top]} for token in tokens],
            text_offset=offsets,
        )


def finish(ending: Ending | None) -> Finish:
    if ending not in ("stop", "length"):
        raise Refused(503, "the server was stopped before the answer was complete")
    return ending


def _event(value: BaseModel) -> str:
    # Unset fields are left out: a chunk without usage must have none, while one's finish_reason must stand there, null.
    return f"data: {value.model_dump_json(exclude_unset=True)}\n\n"


def _text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _logprobs(pieces: Sequence[Piece]) -> list[Logprob]:
    return [token for piece in pieces for token in piece.logprobs or []]


def _top(token: Logprob) -> TopLogprob:
    whole = "\ufffd" not in token.token
    return TopLogprob(token=token.token, logprob=token.logprob, bytes=list(token.token.encode()) if whole else None)
