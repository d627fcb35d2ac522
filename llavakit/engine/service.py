"""A thread that owns the model and answers whoever submits a conversation, piece by piece."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from llavakit.base.errors import WorkFailed
from llavakit.base.log import log
from llavakit.chat.conversation import Conversation
from llavakit.engine.engine import GREEDY, Engine
from llavakit.engine.sample import Decoding
from llavakit.engine.text import Writer
from llavakit.model.encode import Example, encode

T = TypeVar("T")
Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its text, and the natural logarithm of the probability that the model gave it (before temperature).
    ``top``: the most likely tokens in its place, best first, themselves without ``top``."""

    id: int
    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer. ``text`` may be empty while a character or a stop string is incomplete; ``ids`` are the
    tokens since the last piece; ``logprobs`` one for each of them, where they were asked for."""

    text: str
    ids: list[int]
    logprobs: list[TokenLogprob] | None = None


@dataclass(frozen=True)
class Stats:
    """What a service is doing and has done since it began."""

    queue: int
    """conversations that wait for a place"""
    running: int
    """conversations that are being answered"""
    batch_size: int
    """places"""
    prompt_tokens: int
    completion_tokens: int
    steps: int
    """times that the model ran for a further token of every running answer"""
    prefix_hits: int
    """prompt tokens that needed no computing, since they were shared"""
    prefix_misses: int
    """prompt tokens that were computed"""
    image_hits: int
    """pictures whose features were there"""
    image_misses: int
    cache_bytes: int


class Ticket:
    """One submitted conversation. Iterate it for the pieces of its answer, from any one thread.

    After the last piece :attr:`finish` is ``"stop"`` (end of answer or a stop string), ``"length"`` (the limit of
    tokens, or the context, is reached) or ``"cancelled"``. Iterating raises :class:`WorkFailed` when the service
    broke or was closed before the answer was complete.
    """

    def __init__(self, example: Example, how: Decoding, logprobs: int) -> None:
        self.example = example
        self.how = how
        self.logprobs = logprobs
        self.finish: Finish | None = None
        self.completion_tokens = 0
        self.cancelled = False
        self._pieces: queue.SimpleQueue[Piece | Exception | None] = queue.SimpleQueue()

    @property
    def prompt_tokens(self) -> int:
        return len(self.example)

    def cancel(self) -> None:
        """Wants no more of it; its place is free at the next step. Does nothing once the answer is complete."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Piece]:
        while (item := self._pieces.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def _give(self, piece: Piece) -> None:
        self.completion_tokens += len(piece.ids)
        self._pieces.put(piece)

    def _end(self, finish: Finish) -> None:
        self.finish = finish
        self._pieces.put(None)

    def _fail(self, error: Exception) -> None:
        self._pieces.put(error)


class Service:
    """Answers conversations of many callers with one engine, which nobody else may use meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        self._errands: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._closing: Literal["", "drain", "now"] = ""
        self._counts = {"prompt_tokens": 0, "completion_tokens": 0, "steps": 0}
        self._thread = threading.Thread(target=self._loop, name="llavakit-engine", daemon=True)
        self._thread.start()

    def submit(self, asked: Conversation | Example, how: Decoding = GREEDY, logprobs: int = 0) -> Ticket:
        """Queues a conversation, or a prompt that is encoded already, for its next turn.

        ``logprobs``: how many of the most likely tokens to tell for each token of the answer; 0 tells none, not even
        the token's own.

        Raises :class:`~llavakit.base.errors.BadRecord`, in the caller's thread, for one that cannot be encoded, and
        :class:`WorkFailed` once the service is closed.
        """
        example = asked if isinstance(asked, Example) else encode(asked, self.engine.codec, prompt=True)
        ticket = Ticket(example, how, logprobs)
        with self._wake:
            if self._closing:
                raise WorkFailed("the service is closed")
            self._waiting.append(ticket)
            self._wake.notify()
        return ticket

    def run(self, work: Callable[[Engine], T]) -> Future[T]:
        """Has ``work`` done by the thread that owns the model, between two steps. Raises :class:`WorkFailed` once the
        service is closed."""
        future: Future[T] = Future()
        with self._wake:
            if self._closing:
                raise WorkFailed("the service is closed")
            self._errands.append((work, future))
            self._wake.notify()
        return future

    def stats(self) -> Stats:
        """A snapshot; never waits for the model."""
        with self._wake:
            return Stats(
                queue=len(self._waiting),
                running=len(self._running),
                batch_size=self.engine.batch_size,
                **self._counts,
                prefix_hits=0,
                prefix_misses=0,
                image_hits=0,
                image_misses=0,
                cache_bytes=0,
            )

    def close(self, drain: bool = True) -> None:
        """Takes no more. ``drain`` finishes what was submitted; else every open ticket fails. Returns when the thread
        has ended."""
        with self._wake:
            self._closing = "drain" if drain else "now"
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closing or self._errands)
                errands = list(self._errands)
                self._errands.clear()
            for work, future in errands:
                _run(work, self.engine, future)
            if errands:
                continue
            with self._wake:
                if self._closing == "now" or not self._waiting:
                    break
                ticket = self._waiting.popleft()
                self._running = [ticket]
            try:
                self._answer(ticket)
            except Exception as error:
                log.exception("the engine failed")
                ticket._fail(WorkFailed(f"the engine failed: {type(error).__name__}: {error}"))
            self._running = []
        for ticket in self._waiting:
            ticket._fail(WorkFailed("the service was closed before the answer was complete"))

    def _answer(self, ticket: Ticket) -> None:
        writer = Writer(self.engine.codec.tokenizer, ticket.how.stop)
        self._counts["prompt_tokens"] += ticket.prompt_tokens
        room = min(ticket.how.max_new_tokens, self.engine.codec.max_length - ticket.prompt_tokens)
        for _, id in self.engine.tokens([ticket.example], ticket.how):
            ticket._give(Piece(writer.push(id), [id]))
            self._counts["completion_tokens"] += 1
            self._counts["steps"] += 1
            if ticket.cancelled or self._closing == "now":
                return ticket._end("cancelled")
            if writer.stopped:
                return ticket._end("stop")
        rest = writer.end()
        if rest:
            ticket._give(Piece(rest, []))
        ticket._end("length" if ticket.completion_tokens == room else "stop")


def _run(work: Callable[[Engine], T], engine: Engine, future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work(engine))
    except Exception as error:  # it is raised where the future is waited for
        future.set_exception(error)
