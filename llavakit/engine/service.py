"""A thread that owns the model and answers whoever submits a conversation, piece by piece."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from llavakit.base.errors import WorkFailed
from llavakit.base.log import log
from llavakit.chat.conversation import Conversation
from llavakit.engine.engine import Engine
from llavakit.engine.request import Finish, Piece, Request, TokenLogprob
from llavakit.engine.sample import GREEDY, Decoding
from llavakit.model.encode import Example, encode

T = TypeVar("T")

__all__ = ["Decoding", "Finish", "Piece", "Service", "Stats", "Ticket", "TokenLogprob"]


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
    """of shared prefixes and picture features"""


class Ticket:
    """One submitted conversation. Iterate it for the pieces of its answer, once, from any one thread.

    After the last piece :attr:`finish` is ``"stop"`` (end of answer or a stop string), ``"length"`` (the limit of
    tokens, or the context, is reached) or ``"cancelled"``. Iterating raises :class:`WorkFailed` when the service
    broke or was closed before the answer was complete.
    """

    def __init__(
        self, asked: Conversation | Example, how: Decoding, logprobs: int, continues: bool, engine: Engine
    ) -> None:
        self._pieces: queue.SimpleQueue[Piece | Exception | None] = queue.SimpleQueue()
        example = asked if isinstance(asked, Example) else encode(asked, engine.codec, prompt=True)
        self._request = Request(example, how, engine.codec, self._pieces.put, logprobs, True, continues)

    @property
    def finish(self) -> Finish | None:
        return self._request.finish

    @property
    def prompt_tokens(self) -> int:
        return len(self._request.example)

    @property
    def completion_tokens(self) -> int:
        return len(self._request.ids)

    def cancel(self) -> None:
        """Wants no more of it; its place is free at the next step. Does nothing once the answer is complete."""
        self._request.cancelled = True

    def __iter__(self) -> Iterator[Piece]:
        while (item := self._pieces.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def _end(self, error: Exception | None = None) -> None:
        self._pieces.put(error)


class Service:
    """Answers conversations of many callers with one engine, which nobody else may use meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._new: list[Ticket] = []
        self._open: dict[Request, Ticket] = {}
        self._errands: list[tuple[Callable[[Engine], Any], Future[Any]]] = []
        self._wake = threading.Condition()
        self._closing: Literal["", "drain", "now"] = ""
        self._prompt_tokens = self._completion_tokens = 0
        self._thread = threading.Thread(target=self._loop, name="llavakit-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        asked: Conversation | Example,
        how: Decoding = GREEDY,
        logprobs: int = 0,
        continues: bool = False,
    ) -> Ticket:
        """Queues a conversation for its next turn, or a prompt that is encoded already.

        ``logprobs``: how many of the most likely tokens to tell for each token of the answer; 0 tells none, not even
        the token's own. A beam search tells none. ``continues``: the answer goes on with the prompt's text, so the
        white space that opens it is kept.

        Raises :class:`~llavakit.base.errors.BadRecord`, in the caller's thread, for one that cannot be encoded, and
        :class:`WorkFailed` once the service is closed.
        """
        ticket = Ticket(asked, how, logprobs, continues, self.engine)
        with self._wake:
            if self._closing:
                raise WorkFailed("the service is closed")
            self._new.append(ticket)
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
        engine, batch = self.engine, self.engine.batch
        with self._wake:
            return Stats(
                queue=len(self._new) + len(batch.waiting),
                running=len(batch.running),
                batch_size=batch.places,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens + sum(len(request.ids) for request in list(self._open)),
                steps=batch.steps,
                prefix_hits=engine.prefixes.hits,
                prefix_misses=engine.prefixes.misses,
                image_hits=engine.features.hits,
                image_misses=engine.features.misses,
                cache_bytes=engine.prefixes.bytes + engine.features.bytes,
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
                self._wake.wait_for(lambda: self._new or self._open or self._errands or self._closing)
                errands, self._errands = self._errands, []
                new, self._new = self._new, []
                self._open |= {ticket._request: ticket for ticket in new}
                leaving = self._closing == "now" or (self._closing and not self._open)
            for work, future in errands:
                _run(work, self.engine, future)
            if leaving:
                break
            if not self._open:
                continue
            try:
                for ticket in new:
                    self.engine.batch.add(ticket._request)
                self._end(self.engine.batch.step())
            except Exception as error:
                log.exception("the engine failed")
                self.engine.batch.abandon()
                self._end(list(self._open), WorkFailed(f"the engine failed: {type(error).__name__}: {error}"))
        self.engine.batch.abandon()
        self._end(list(self._open), WorkFailed("the service was closed before the answer was complete"))

    def _end(self, requests: list[Request], error: Exception | None = None) -> None:
        with self._wake:
            for request in requests:
                self._prompt_tokens += len(request.example)
                self._completion_tokens += len(request.ids)
                self._open.pop(request)._end(error)


def _run(work: Callable[[Engine], T], engine: Engine, future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work(engine))
    except Exception as error:  # it is raised where the future is waited for
        future.set_exception(error)
