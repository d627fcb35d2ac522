"""Pictures from strangers: data URLs, and remote ones that must never lead into the local network."""

from __future__ import annotations

import asyncio
import base64
import io
import ipaddress
import socket
import ssl
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi")

from llavakit.serve.fetch import fetch, is_public
from llavakit.serve.pictures import PictureLimits, picture
from llavakit.serve.refuse import Refused
from tests.serve.conftest import data_url, noise

LIMITS = PictureLimits(bytes=100_000, pixels=1_000_000)


def refused(url: str, limits: PictureLimits = LIMITS) -> Refused:
    with pytest.raises(Refused) as caught:
        asyncio.run(picture(url, limits))
    return caught.value


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_data_url_is_its_bytes(format: str) -> None:
    url = data_url(noise(0), format)
    assert asyncio.run(picture(url, LIMITS)) == base64.b64decode(url.partition(",")[2])


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


def encoded(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def eps() -> bytes:
    out = io.BytesIO()
    noise(0).save(out, "EPS")
    return out.getvalue()


@pytest.mark.parametrize(
    ("url", "status", "reason"),
    [
        (encoded(bomb()), 413, "1,000,000 pixels"),
        (encoded(b"x" * 100_001), 413, "100,000 bytes"),
        (encoded(eps()), 400, "no picture of a known format"),
        (encoded(b"hello"), 400, "no picture of a known format"),
        ("data:image/png;base64,%%%", 400, "base64 is damaged"),
        ("data:image/png,abc", 400, "data URL"),
        ("data:", 400, "data URL"),
        ("/etc/passwd", 400, "data URL"),
        ("file:///etc/passwd", 400, "data URL"),
        ("", 400, "data URL"),
        ("https://example.com/a.png", 400, "fetches no remote pictures"),
        ("http://example.com/a.png", 400, "fetches no remote pictures"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(url: str, status: int, reason: str) -> None:
    error = refused(url)
    assert error.status == status and reason in error.message


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF", b"\xff\xd8"]))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_only_ever_refused(data: bytes, head: bytes) -> None:
    try:
        asyncio.run(picture(encoded(head + data), LIMITS))
    except Refused as error:
        assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("10.0.0.1", False),
        ("172.16.3.4", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/a.png",
        "https://127.0.0.1/a.png",
        "https://127.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f.0.0.1/a.png",
        "https://[::1]/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://user:secret@93.184.215.14/a.png",
        "https://:443/",
        "https://[::1",
        "https://a..b/",
        "https://127.0.0.1:99999/",
        "http://93.184.215.14/a.png",
    ],
)
def test_remote_pictures_never_lead_inside(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(asyncio, "open_connection", connect)
    assert refused(url, LIMITS.evolve(remote=True)).status == 400


def test_one_private_address_of_several_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 443)) for a in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert "not in the public internet" in refused("https://two.example/a.png", LIMITS.evolve(remote=True)).message


# ---- a true server, at a loopback address that these tests allow

PNG = base64.b64decode(data_url(noise(1)).partition(",")[2])


class Host(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        routes: dict[str, Callable[[], None]] = {
            "/good.png?a=b": lambda: self.reply(200, PNG, "image/png"),
            "/page": lambda: self.reply(200, b"<html>", "text/html"),
            "/missing": lambda: self.reply(404, b"", "image/png"),
            "/large": lambda: self.reply(200, b"x" * 200_000, "image/png"),
            "/endless": self.endless,
            "/slow": lambda: threading.Event().wait(3) and None,
            "/here": lambda: self.redirect("/good.png?a=b"),
            "/inside": lambda: self.redirect(f"https://127.0.0.2:{self.server.server_port}/good.png?a=b"),  # type: ignore[attr-defined]
            "/plain": lambda: self.redirect("http://127.0.0.1/good.png"),
            "/round": lambda: self.redirect("/round"),
        }
        routes[self.path]()

    def reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 9999)
        except OSError:
            pass

    def redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ssl.SSLContext]]:
    """An https server at 127.0.0.1, and a context that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=host", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl, which makes the certificate, is not here")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = inner.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", ssl.create_default_context(cafile=Path(folder / "cert.pem"))
    server.shutdown()


def fetched(host: tuple[str, ssl.SSLContext], path: str) -> bytes:
    allowed = {ipaddress.ip_address("127.0.0.1")}
    return asyncio.run(fetch(host[0] + path, 100_000, 1.0, allowed=allowed.__contains__, context=host[1]))


def test_a_remote_picture_comes_also_by_redirect(host: tuple[str, ssl.SSLContext]) -> None:
    assert fetched(host, "/good.png?a=b") == fetched(host, "/here") == PNG
    with Image.open(io.BytesIO(PNG)) as image:
        assert image.size == (40, 30)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/page", 400, "no picture"),
        ("/missing", 400, "status 404"),
        ("/large", 413, "100,000 bytes"),
        ("/endless", 413, "100,000 bytes"),
        ("/slow", 400, "within 1 s"),
        ("/inside", 400, "not in the public internet"),
        ("/plain", 400, "only https"),
        ("/round", 400, "redirected more than 3 times"),
    ],
)
def test_what_a_host_may_not_do(host: tuple[str, ssl.SSLContext], path: str, status: int, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        fetched(host, path)
    assert caught.value.status == status and reason in caught.value.message


def test_a_certificate_that_nobody_vouches_for_is_refused(host: tuple[str, ssl.SSLContext]) -> None:
    with pytest.raises(Refused, match="could not be reached"):
        fetched((host[0], ssl.create_default_context()), "/good.png?a=b")
