"""The bodies of the requests that the router has: how long one may be, how many may be held, how long one may take.

Imports nothing of ours but the router's error, for the router's sake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from artifact.router.pools import RouterError

MAX_BODY_BYTES = 4 << 20


@dataclass
class Bodies:
    """Limits, and what is held under them.

    most_bytes: of one body. most_held_bytes: of all that are under way; those of small_bytes are let in beyond it, so
    that large ones cannot keep them out. timeout_s: from a request's headers to the end of its body.
    """

    most_bytes: int = MAX_BODY_BYTES
    most_held_bytes: int = 512 << 20
    small_bytes: int = 64 << 10
    timeout_s: float = 60.0
    held_bytes: int = field(default=0, init=False)

    @asynccontextmanager
    async def received(self, request: web.Request) -> AsyncIterator[bytes]:
        """The whole body, held until the context ends. RouterError when it is too long or too slow, or too many are."""
        body = bytearray()
        try:
            await self._read(request, body)
            yield bytes(body)
        finally:
            self.held_bytes -= len(body)

    async def _read(self, request: web.Request, body: bytearray) -> None:
        """Append to `body` what comes, counted while it does."""
        too_long = RouterError(f"request body is longer than {self.most_bytes} bytes; send less", 413)
        if (request.content_length or 0) > self.most_bytes:
            raise too_long
        try:
            async with asyncio.timeout(self.timeout_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    self.held_bytes += len(chunk)
                    if len(body) > self.most_bytes:
                        raise too_long
                    if len(body) > self.small_bytes and self.held_bytes > self.most_held_bytes:
                        raise RouterError("the router holds too many large requests; try again later", 503)
        except TimeoutError:
            raise RouterError(f"request body did not come within {self.timeout_s:g} s; send it faster", 408) from None
