"""From the event loop to the engine's thread and back: tickets as one stream of events that can be given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from llavakit.base.errors import WorkFailed
from llavakit.chat.conversation import Conversation
from llavakit.engine.sample import Decoding
from llavakit.engine.service import Piece, Service, Ticket
from llavakit.model.encode import Example
from llavakit.serve.metrics import Metrics

T = TypeVar("T")
Event = tuple[int, Piece | None]
"""The number of an answer, and its next piece; None when it is complete."""

ENCODERS = 2
"""Threads that decode pictures. Each may hold a whole one in memory, so they are few."""


class Desk:
    """Takes questions to the service and brings the answers. ``places``: answers that may be under way at once."""

    def __init__(self, service: Service, metrics: Metrics, places: int) -> None:
        self.service, self.metrics = service, metrics
        self._encoders = ThreadPoolExecutor(ENCODERS, "llavakit-encode")
        self._listeners = ThreadPoolExecutor(places, "llavakit-listen")

    async def submit(
        self, asked: Sequence[tuple[Conversation | Example, Decoding]], logprobs: int, continues: bool
    ) -> list[Ticket]:
        """A ticket for each question; arguments are the service's.

        Raises :class:`~llavakit.base.errors.BadRecord` as the service does; then, and when the caller gives up, none is
        left behind.
        """
        tickets: list[Ticket] = []
        loop = asyncio.get_running_loop()
        try:
            for what, how in asked:
                pending = loop.run_in_executor(self._encoders, self.service.submit, what, how, logprobs, continues)
                try:
                    tickets.append(await asyncio.shield(pending))
                except asyncio.CancelledError:
                    pending.add_done_callback(_cancel_late)
                    raise
        except BaseException:
            give_up(tickets)
            raise
        return tickets

    async def events(self, tickets: Sequence[Ticket], since: float) -> AsyncIterator[Event]:
        """The pieces of all answers as they come. ``since``: the time, by ``time.monotonic``, of the request. When it
        is closed, or fails, the answers are given up. Raises :class:`WorkFailed` when the engine does."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

        def listen(number: int, ticket: Ticket) -> None:
            def tell(item: Piece | Exception | None) -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                    loop.call_soon_threadsafe(arrived.put_nowait, (number, item))

            try:
                for piece in ticket:
                    tell(piece)
                tell(None)
            except Exception as error:
                tell(error)

        try:
            for number, ticket in enumerate(tickets):
                self._listeners.submit(listen, number, ticket)
            silent, left = set(range(len(tickets))), len(tickets)
            while left:
                number, item = await arrived.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    left -= 1
                    if tickets[number].finish == "cancelled":
                        raise WorkFailed("the server was stopped before the answer was complete")
                else:
                    self.metrics.wrote(len(item.ids))
                    if number in silent:
                        silent.discard(number)
                        self.metrics.began(time.monotonic() - since)
                yield number, item
        finally:
            give_up(tickets)

    async def on_engine(self, work: Callable[..., T], *args: Any) -> T:
        """What ``work(engine, *args)`` returns, run in the thread that owns the model."""
        return await asyncio.wrap_future(self.service.run(lambda engine: work(engine, *args)))

    def close(self) -> None:
        """Finishes what was submitted, then stops all threads."""
        self.service.close(drain=True)
        self._encoders.shutdown()
        self._listeners.shutdown()


def give_up(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.cancel()


def _cancel_late(done: asyncio.Future[Ticket]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().cancel()


async def while_there(gone: Awaitable[None], work: Coroutine[Any, Any, T]) -> T | None:
    """What ``work`` returns; None, and the work is given up, when ``gone`` comes first: the client has left."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
