"""HTTP bodies as ASGI messages: read up to a limit, measured, played again, refused."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Of a body that is too long, so many times the limit are read and thrown away.
UNWANTED = 2
#: A longer body is parsed in a thread, and must not be made of more lists and objects than that: a parser makes the
#: event loop, and with it every stream, wait for each of them.
LONG_BODY_BYTES, MOST_CONTAINERS = 256 << 10, 100_000
# A string that does not end is one too, and nothing is tried again (possessive), so that each byte is looked at once:
# else every quote that nothing closes would be a search to the end of the body, with the event loop held all the time.
_STRING_OR_CONTAINER = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]', re.DOTALL)

_KINDS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    413: "RequestEntityTooLargeError",
}


class TooLong(Exception):
    """The body is longer than the configuration allows. unread: more of it is to come."""

    def __init__(self, unread: bool) -> None:
        super().__init__()
        self.unread = unread


class Gone(Exception):
    """The client left before its request was complete."""


def declared_length(scope: Scope) -> int:
    """Content-Length; 0 when there is none or none that means anything: what comes is counted anyway."""
    values = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() and len(values[0]) < 20 else 0


async def read(receive: Receive, declared: int, limit: int) -> bytes:
    """The whole body. Raises TooLong as soon as it is known to be beyond `limit`, Gone when the client left."""
    if declared > limit:
        raise TooLong(unread=True)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise TooLong(unread=more)
        if not more:
            return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, then whatever comes: vLLM listens for clients that leave."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


class Piecewise:
    """A body of at most `limit` bytes, on its way to an application that reads it piece by piece, as it does uploads.

    Beyond, the application is told that the client has left, and what it answers to that is dropped. unread: more of
    the body is to come.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._left = receive, send, limit
        self._answered, self.unread = False, False

    @property
    def cut(self) -> bool:
        """Whether the body was too long, and the client has no answer."""
        return self._left < 0 and not self._answered

    async def receive(self) -> Message:
        """The next piece."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left >= 0:
            return message
        self.unread = message.get("more_body", False)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass the answer on, unless it comes of the cut."""
        if not self.cut:
            self._answered = True
            await self._send(message)


def with_length(scope: Scope, length: int) -> Scope:
    """The scope of a request whose body is now `length` bytes in one piece."""
    dropped = (b"content-length", b"transfer-encoding")
    headers = [pair for pair in scope["headers"] if pair[0].lower() not in dropped]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


async def discarded(receive: Receive, most_bytes: int) -> None:
    """What a client goes on sending, up to a limit: one whose connection is closed meanwhile may not see the answer."""
    more = True
    while more and most_bytes > 0:
        message = await receive()
        more = message.get("more_body", False)
        most_bytes -= len(message.get("body", b""))


def has_too_many_parts(body: bytes) -> bool:
    """Whether it has more lists and objects than MOST_CONTAINERS; what stands in strings does not count."""
    if body.count(b"[") + body.count(b"{") <= MOST_CONTAINERS:
        return False
    count = 0
    for found in _STRING_OR_CONTAINER.finditer(body):
        count += body[found.start()] != ord('"')
        if count > MOST_CONTAINERS:
            return True
    return False


async def refuse(
    send: Send, status: int, message: str, param: str | None = None, *, unread: Awaitable[None] | None = None
) -> None:
    """An error in OpenAI's format, as vLLM writes it. unread: awaited when it is sent, before the end is."""
    kind = _KINDS[status]
    body = json.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": unread is not None})
    if unread is not None:
        await unread
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def turn_away(scope: Scope, send: Send, why: str) -> None:
    """401 that says why; a WebSocket is closed before it opens."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await refuse(send, 401, why)
