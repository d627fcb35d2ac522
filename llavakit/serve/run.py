"""A server process: a socket, a model, and an orderly end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from llavakit.base.errors import WorkFailed
from llavakit.base.log import log
from llavakit.engine.engine import Engine
from llavakit.engine.service import Service
from llavakit.serve.api import ServeConfig, application
from llavakit.serve.gate import is_loopback

BACKLOG = 1024
SHUTDOWN_SECONDS = 600
"""For what runs to be finished; a second signal ends the process at once."""


def serve(engine: Callable[[], Engine], config: ServeConfig) -> None:
    """Serves what ``engine`` loads until SIGINT or SIGTERM, then finishes what runs. Raises :class:`WorkFailed` for a
    port that is taken."""
    # Bound before the model is loaded: minutes of loading should not end in "address already in use".
    listener = bind(config.host, config.port)
    service = Service(engine())
    if config.api_key is None and not is_loopback(config.host):
        log.warning("no API key: whoever reaches %s may use this server", config.host)
    settings = uvicorn.Config(
        application(service, config),
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        backlog=BACKLOG,
    )
    log.info("%s at %s (chat page, and OpenAI's API under /v1); Ctrl-C ends it", config.name, url(listener))
    try:
        _Server(settings).run(sockets=[listener])
    finally:
        service.close(drain=False)  # nothing runs any more, unless a second signal cut it short


class _Server(uvicorn.Server):
    """To be told to stop, and to have stopped in order, is no failure: uvicorn's own would now die of the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any that is free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening, so that early callers wait for the model instead of being refused.
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        raise WorkFailed(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from None


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
