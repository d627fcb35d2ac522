"""The gate before the application: who may come in, how many, with how much. Works before a body is read."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llavakit.serve.metrics import Metrics
from llavakit.serve.refuse import Refused, overloaded

OPEN = ("/", "/health", "/favicon.ico")
"""Paths that need no key, and all of ``/web/``: the page must load before it can ask for the key."""
BODY_SECONDS = 60.0
"""For a request's body to come: who sends it drop by drop must not keep a place for ever."""

LINGER_BYTES, LINGER_SECONDS = 32 * 2**20, 2.0
"""How much is read, and how long, of a body that is refused for its size."""


class Room:
    """Counts the answers under way. ``places`` of them may be; the next is told to come back."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0

    def take(self, count: int) -> bool:
        if self.taken + count > self.places:
            return False
        self.taken += count
        return True


class Seat:
    """What one request has taken of the room."""

    def __init__(self, room: Room, metrics: Metrics) -> None:
        self.room, self.metrics, self.count = room, metrics, 0

    def take(self, count: int) -> None:
        """Takes further places. Raises :class:`Refused`: 400 where it asks for more than there are, else 429."""
        if self.count + count > self.room.places:
            raise Refused(400, f"{self.count + count} answers in one request; this server holds {self.room.places}")
        if not self.room.take(count):
            raise overloaded(self.metrics.seconds_until(self.room.taken - self.room.places // 2))
        self.count += count

    def leave(self) -> None:
        self.room.taken -= self.count
        self.count = 0


class Gate:
    """ASGI middleware: host, key, size of the body, and a seat for every POST."""

    def __init__(
        self, app: ASGIApp, *, room: Room, metrics: Metrics, api_key: str | None, local: bool, max_body: int
    ) -> None:
        self.app, self.room, self.metrics = app, room, metrics
        self.api_key, self.max_body = api_key, max_body
        # Without a key, a loopback server answers to loopback names alone: a web page whose name is made to resolve
        # to 127.0.0.1 is, to the browser, of the same origin as this server.
        self.local = local and api_key is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answered(message["status"])
            await send(message)

        seat = scope["llavakit.seat"] = Seat(self.room, self.metrics)
        try:
            self._admit(scope, seat)
        except Refused as refused:
            if refused.status == 413 and b"expect" not in dict(scope["headers"]):  # who expects waits for the answer
                await _drained(receive)
            await refused.response()(scope, receive, counted)
            return
        try:
            await self.app(scope, self._limited(receive), counted)
        finally:
            if seat.count:
                seat.leave()
                self.metrics.finished(time.monotonic() - started)

    def _admit(self, scope: Scope, seat: Seat) -> None:
        headers = {key.lower(): value for key, value in scope["headers"]}
        if self.local and not is_loopback(host_of(headers.get(b"host", b"").decode("latin-1"))):
            raise Refused(403, "this server answers to localhost alone; start it with --host or a key for other names")
        path: str = scope["path"]
        if self.api_key is not None and path not in OPEN and not path.startswith("/web/"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.api_key.encode()):
                raise Refused(401, "a wrong API key, or none: Authorization: Bearer KEY", "invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            raise Refused(413, f"the body has more than {self.max_body:,} bytes", "request_too_large")
        if scope["method"] == "POST":
            seat.take(1)

    def _limited(self, receive: Receive) -> Receive:
        """``receive`` with a limit of bytes and of time, both of the body alone."""
        deadline = time.monotonic() + BODY_SECONDS
        size, whole = 0, False

        async def limited() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not come in time") from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > self.max_body:
                if not whole:
                    await _drained(receive)
                # An HTTPException: the application makes any other one, raised as it reads the body, its own.
                raise HTTPException(413, f"the body has more than {self.max_body:,} bytes")
            return message

        return limited


async def _drained(receive: Receive) -> None:
    """Reads on for a while: a client that still writes when its connection is closed never reads why."""
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def host_of(value: str) -> str:
    """``"[::1]:8000"`` -> ``"::1"``, ``"localhost:80"`` -> ``"localhost"``."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its loopback name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
