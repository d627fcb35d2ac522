"""A real HTTP server that speaks the protocol and misbehaves as told, and counts every question it is asked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from llavakit.endpoint.local import Handler, LocalEndpoint, completion
from llavakit.endpoint.request import Request

Manner = str
"""How one attempt is met: well, slow, limited, late_limited, broken, empty, nothing, cut, hung_up, error, ..."""


class Rude(LocalEndpoint):
    """``manners(question, n)``: how attempt n (from 0) of a question is met, by its last message's text."""

    def __init__(self, manners: Callable[[str, int], Manner] = lambda question, n: "well", slow: float = 0.0) -> None:
        super().__init__(echo, handler=RudeHandler)
        self.manners = manners
        self.slow = slow
        self.asked: Counter[str] = Counter()
        self.seen: list[tuple[float, str]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()


def echo(body: Mapping[str, Any]) -> str:
    return f"answer to {question_of(body)}"


def question_of(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


class RudeHandler(Handler):
    server: Rude

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = question_of(body)
        with server.lock:
            attempt = server.asked[question]
            server.asked[question] += 1
            server.seen.append((time.monotonic(), question))
            server.keys.append(self.headers.get("Idempotency-Key"))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            time.sleep(server.slow)
            self.meet(server.manners(question, attempt), Request(body))
        finally:
            with server.lock:
                server.at_once -= 1

    def meet(self, manner: Manner, request: Request) -> None:
        good = completion(request, self.server.answers(request.body))
        error = {"error": {"message": f"told to be {manner}", "type": "x", "code": manner}}
        kind, _, detail = manner.partition(" ")
        if kind == "well":
            self.reply(200, good)
        elif kind == "limited":
            self.reply(429, error, Retry_After=detail)
        elif kind == "status":
            self.reply(int(detail), error)
        elif kind == "quota":
            self.reply(429, {"error": {"message": "no money left", "type": "x", "code": "insufficient_quota"}})
        elif kind == "slow":
            time.sleep(float(detail))
            self.reply(200, good)
        elif kind == "empty":  # paid for, and nothing in it
            self.reply(200, good | {"choices": []})
        elif kind == "blank":
            self.reply(200, completion(request, "  "))
        elif kind == "long":
            self.reply(200, completion(request, "cut sho", finish="length"))
        elif kind == "uncounted":
            self.reply(200, {key: value for key, value in good.items() if key != "usage"})
        elif kind == "broken":
            self.raw(b'{"choices": [{"mess')
        elif kind == "page":
            self.raw(b"<html>Bad gateway</html>", "text/html")
        elif kind == "cut":  # the connection ends in the middle of the body
            self.raw(json.dumps(good).encode()[:40], length=4000)
            self.close()
        elif kind == "hung_up":  # the connection ends before any answer
            self.close()
        else:
            raise ValueError(manner)

    def raw(self, data: bytes, kind: str = "application/json", length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def close(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
