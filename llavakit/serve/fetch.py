"""Fetching a picture that a stranger named, without becoming the stranger's arm into the local network.

The name is resolved once, every address it has must be public, and the connection goes to the address that was
checked: a name cannot change its mind in between. Each redirect is treated the same. One clock runs over everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from llavakit import __version__
from llavakit.serve.refuse import Refused

REDIRECTS = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address lies in the open internet, also by the IPv4 address that it may wrap."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    # is_global alone lets multicast through.
    return address.is_global and not address.is_multicast and not address.is_reserved


async def fetch(
    url: str,
    limit: int,
    seconds: float,
    *,
    allowed: Callable[[Address], bool] = is_public,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """The body of an ``image/*`` answer of at most ``limit`` bytes. Raises :class:`Refused` for everything else."""
    context = context or ssl.create_default_context()
    try:
        async with asyncio.timeout(seconds):
            for _ in range(REDIRECTS + 1):
                status, headers, body = await _get(url, limit, allowed, context)
                if status in (301, 302, 303, 307, 308) and "location" in headers:
                    url = urljoin(url, headers["location"])
                    continue
                if status != 200:
                    raise _bad(f"its server answered with status {status}")
                if not headers.get("content-type", "").lower().startswith("image/"):
                    raise _bad("its server says that it is no picture")
                return body
    except TimeoutError:
        raise _bad(f"it did not come within {seconds:g} s") from None
    except (OSError, h11.RemoteProtocolError, UnicodeError, ValueError):
        # One text for all: it must not tell an open port from a closed one.
        raise _bad("its server could not be reached") from None
    raise _bad(f"it was redirected more than {REDIRECTS} times")


def _bad(reason: str) -> Refused:
    return Refused(400, f"the picture's URL was not fetched: {reason}", "invalid_image_url")


async def _resolve(host: str, port: int, allowed: Callable[[Address], bool]) -> str:
    """An address of ``host`` that may be connected to. All of its addresses must be allowed."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in found]
    if not addresses or not all(allowed(ipaddress.ip_address(address.partition("%")[0])) for address in addresses):
        raise _bad("its address is not in the public internet")
    return addresses[0]


def _split(url: str) -> tuple[SplitResult, str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise _bad("only https is fetched")
    if parts.username is not None or parts.password is not None:
        raise _bad("it holds a user name or password")
    return parts, parts.hostname, parts.port or 443


async def _get(
    url: str, limit: int, allowed: Callable[[Address], bool], context: ssl.SSLContext
) -> tuple[int, dict[str, str], bytes]:
    """One request: status, headers, and the body where the status is 200."""
    parts, host, port = _split(url)
    address = await _resolve(host, port, allowed)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    request = h11.Request(
        method="GET",
        target=target.encode("ascii"),
        headers=[
            ("Host", name if port == 443 else f"{name}:{port}"),
            ("User-Agent", f"llavakit/{__version__}"),
            ("Accept", "image/*"),
            # Nothing is unpacked here, so nothing small can become large.
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ],
    )
    async with _connected(address, port, host, context) as (reader, writer):
        connection = h11.Connection(h11.CLIENT)
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        status, headers, body = 0, dict[str, str](), bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in event.headers}
                if status != 200:
                    return status, headers, b""
                if int(headers.get("content-length", "0")) > limit:
                    raise Refused(413, f"the picture has more than {limit:,} bytes", "image_too_large")
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise Refused(413, f"the picture has more than {limit:,} bytes", "image_too_large")
            elif isinstance(event, h11.EndOfMessage):
                return status, headers, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise _bad("its server closed the connection")


@contextlib.asynccontextmanager
async def _connected(
    address: str, port: int, host: str, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
