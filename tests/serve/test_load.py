"""Too many, too large, gone, and the end: what happens at the limits."""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import openai
import pytest
from openai import OpenAI

from tests.serve.conftest import Running, data_url, noise, process, until, user


def talker(address: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)


def begin(client: OpenAI, **more: Any) -> Any:
    """An answer without end whose first piece has come."""
    stream = client.chat.completions.create(model="toy", messages=[user("Go on.")], stream=True, **more)
    next(iter(stream))
    return stream


def test_over_the_queue_429_says_when_to_come_back(running: Running) -> None:
    address, service = running(queue=1)
    client = talker(address)
    streams = [begin(client) for _ in range(2)]  # the places of the batch, or one and the queue
    third = threading.Thread(
        target=lambda: client.chat.completions.create(model="toy", messages=[user("Hm?")], max_tokens=1)
    )
    third.start()
    until(lambda: service.stats().running + service.stats().queue == 3)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="toy", messages=[user("And I?")])
    assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 60
    assert caught.value.code == "overloaded"
    assert client.models.list().data, "what costs nothing is still answered"
    for stream in streams:
        stream.close()
    third.join(10)
    assert not third.is_alive(), "the one that waited was answered"
    with pytest.raises(openai.BadRequestError, match="4 answers in one request; this server holds 3"):
        client.chat.completions.create(model="toy", messages=[user("I want many")], n=4)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place_within_a_second(running: Running, stream: bool) -> None:
    address, service = running(queue=8)
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"model": "toy", "messages": [user("Go on.")], "stream": stream, "n": 3}).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: service.stats().running + service.stats().queue == 3 and service.stats().completion_tokens > 5)
    assert until(lambda: service.stats().running + service.stats().queue == 0) < 1.0
    assert talker(address).chat.completions.create(model="toy", messages=[user("Hm?")], max_tokens=1).choices


def test_bodies_and_pictures_over_the_limits(running: Running) -> None:
    address, _ = running(body_bytes=200_000, pictures={"images": 2, "pixels": 10_000, "bytes": 50_000})
    client = talker(address)

    def status(*images: str, text: str = "?") -> tuple[int, str]:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="toy", messages=[user(text, *images)], max_tokens=1)
        return caught.value.status_code, str(caught.value)

    small = data_url(noise(0))
    head, _, text = small.partition(",")
    assert client.chat.completions.create(model="toy", messages=[user("?", small, small)], max_tokens=1)
    code, reason = status(text="a" * 200_000)
    assert code == 413 and "200,000 bytes" in reason
    code, reason = status(data_url(noise(0, (101, 100)), "JPEG"))
    assert code == 413 and "10,000 pixels" in reason
    code, reason = status(f"{head},{base64.b64encode(base64.b64decode(text) + bytes(50_000)).decode()}")
    assert code == 413 and "50,000 bytes" in reason
    code, reason = status(small, small, small)
    assert code == 400 and "3 pictures in one request; at most 2" in reason


@pytest.mark.parametrize("told", [True, False])
def test_a_body_that_is_too_long_is_refused_with_or_without_a_length(running: Running, told: bool) -> None:
    """Even while the client goes on writing, who would otherwise find the connection gone, not the reason."""
    address, _ = running(body_bytes=1000)
    parts: Any = b" " * 2**22 if told else (b" " * 2**16 for _ in range(64))
    asked = Request(f"{address}/v1/completions", parts, {"Content-Type": "application/json"}, method="POST")
    with pytest.raises(HTTPError) as caught:
        urlopen(asked)
    assert caught.value.code == 413
    assert json.load(caught.value)["error"]["type"] == "invalid_request_error"


def test_who_asks_before_sending_a_long_body_is_refused_at_once(running: Running) -> None:
    address, _ = running(body_bytes=1000)
    host, port = address.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 4000000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=1.5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 "), "and not 100: nothing is to be sent"


def test_the_key_is_asked_for(running: Running) -> None:
    address, _ = running(api_key="sésame")
    for key in ("wrong", ""):
        with pytest.raises(openai.AuthenticationError):
            talker(address, key or "x").models.list()
    asked = Request(f"{address}/v1/models", headers={"Authorization": "Bearer sésame".encode().decode("latin-1")})
    assert json.load(urlopen(asked))["data"]
    for path in ("/", "/health", "/web/app.js", "/web/icon.svg"):
        assert urlopen(address + path).status == 200
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{address}/metrics")


def test_other_names_of_this_machine_are_refused_without_a_key(running: Running) -> None:
    address, _ = running()
    for host, code in (("evil.example", 403), ("localhost", 200), ("127.0.0.1:9", 200), ("[::1]:80", 200)):
        try:
            found = urlopen(Request(f"{address}/health", headers={"Host": host})).status
        except HTTPError as error:
            found = error.code
        assert found == code, host


def test_overload_loses_and_mixes_up_nothing(running: Running) -> None:
    """The short form of benchmarks/serve_load.py: far more callers than places, each tries until it is answered."""
    address, service = running(queue=2)
    client = talker(address)
    expected = {n: answer_to(client, n) for n in range(6)}
    assert len(set(expected.values())) > 3
    refused = 0

    def insist(n: int) -> bool:
        nonlocal refused
        while True:
            try:
                return answer_to(client, n % 6) == expected[n % 6]
            except openai.RateLimitError:
                refused += 1
                time.sleep(0.05)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(insist, range(32)))
    assert refused > 0
    assert service.stats().running == service.stats().queue == 0


def answer_to(client: OpenAI, n: int) -> str | None:
    messages: list[Any] = [user(f"How many {'red ' * n}things?", data_url(noise(n % 2)))]
    reply = client.chat.completions.create(model="toy", messages=messages, max_tokens=12)
    return reply.choices[0].message.content


def test_the_end_waits_for_what_runs(checkpoint: Path) -> None:
    with process(checkpoint, "--name", "toy") as (address, server):
        client = talker(address)
        whole = client.chat.completions.create(model="toy", messages=[user("Go on.")], temperature=1, seed=3)
        stream = client.chat.completions.create(
            model="toy", messages=[user("Go on.")], temperature=1, seed=3, stream=True
        )
        pieces = iter(stream)
        text = next(pieces).choices[0].delta.content or ""
        server.send_signal(signal.SIGTERM)
        text += "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
        assert text == whole.choices[0].message.content
        assert server.wait(20) == 0
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
