"""A function behind the protocol: what answers by rule, or from a file, can be asked like any other endpoint."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llavakit.base.errors import LlavakitError
from llavakit.endpoint.request import Request, Usage

Answers = Callable[[Mapping[str, Any]], str]
"""From the body of a chat completion request to the answer's text. What it raises is told as HTTP 400."""


class Handler(BaseHTTPRequestHandler):
    """Answers ``POST /v1/chat/completions``, one thread a connection."""

    server: LocalEndpoint
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.endswith("/chat/completions"):
            self.reply(404, _error(f"nothing is at {self.path}"))
            return
        try:
            body = json.loads(data)
            request = Request(body)
            self.reply(200, completion(request, self.server.answers(body)))
        except (ValueError, KeyError, TypeError, LlavakitError) as error:
            self.reply(400, _error(str(error)))

    def reply(self, status: int, body: Mapping[str, Any], **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: one line a question would drown the progress bar."""


class LocalEndpoint(ThreadingHTTPServer):
    """Serves ``answers`` on loopback while its ``with`` block lasts. ``url`` is what a client is given."""

    daemon_threads = True

    def __init__(self, answers: Answers, port: int = 0, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.answers = answers
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> LocalEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def completion(request: Request, text: str, finish: str = "stop") -> dict[str, Any]:
    """The body of a chat completion; tokens are counted by estimate."""
    usage = Usage(request.prompt_tokens, -(-len(text.encode()) // 4))
    return {
        "id": f"chatcmpl-{request.key}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.body["model"],
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.answer,
            "total_tokens": usage.prompt + usage.answer,
        },
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}
