"""A client that sends any bytes, and leaves when it is told to: libraries would mend such requests, or refuse them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.waiting import HANG_S

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Knock:
    """One HTTP request, and what must come back.

    sent: its bytes. leaves_s: the client resets the connection that long after sending; None: it stays to the end.
    statuses: the status must be one of these; empty: any below 500, or none. says: what the answer must contain, in its
    message or `param` if it is an error. served: the class that the answer must tell.
    """

    what: str
    sent: bytes
    leaves_s: float | None = None
    statuses: tuple[int, ...] = ()
    says: str | None = None
    served: str | None = None


@dataclass
class Reply:
    """What came back, the body with all that followed; status None: nothing, because the client had left or the server
    closed the connection.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def request(path: str, body: bytes, headers: Headers | None = None, *, method="POST", length=True, last=True) -> bytes:
    """The bytes of a request.

    body: bytes, or what becomes JSON. length: with a Content-Length. last: none follows it on the connection.
    """
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: server", b"Content-Type: application/json"]
    lines += ([b"Content-Length: %d" % len(body)] if length else []) + ([b"Connection: close"] if last else [])
    lines += [name + b": " + value for name, value in headers or []]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def knock(port: int, sent: bytes, leaves_s: float | None = None) -> Reply:
    """Send these bytes and read to the end, or leave. TimeoutError when no whole answer comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        if leaves_s is not None:
            await asyncio.sleep(leaves_s)
            return Reply()
        async with asyncio.timeout(HANG_S):
            return _parsed(await reader.read())
    except ConnectionError:  # a server may close before it has read all of a request that it refuses
        return Reply()
    finally:
        writer.transport.abort()


def _parsed(raw: bytes) -> Reply:
    if not raw:
        return Reply()
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _whole(body)
    return Reply(int(first.split()[1]), headers, body)


def _whole(chunked: bytes) -> bytes:
    """A chunked body put together."""
    whole, rest = b"", chunked
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return whole
