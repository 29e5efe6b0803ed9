"""A stand-in for vLLM's server behind the middleware: an ASGI application that echoes what reached it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx

from niyama.vllm.config import EngineConfig, load_config
from niyama.vllm.serving.middleware import QoSMiddleware

COMPLETIONS = "/v1/completions"


@dataclass
class Echo:
    """Answers with `reply`, or with the body it got; remembers what it got. chunks: a stream of these instead."""

    reply: Any = None
    chunks: tuple[bytes, ...] = ()
    engine: Any = None
    got: list[tuple[dict, bytes]] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.got.append((scope, body))
        if self.engine is not None:
            async for _ in scope["app"].state.engine_client.generate("prompt"):
                pass
        kind = b"text/event-stream; charset=utf-8" if self.chunks else b"application/json"
        pieces = self.chunks or (body if self.reply is None else json.dumps(self.reply).encode(),)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def body(self) -> Any:
        """The last body, parsed."""
        return json.loads(self.got[-1][1])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The last request's headers, as the application saw them."""
        return self.got[-1][0]["headers"]


def configured(**fields: Any) -> EngineConfig:
    """The paper's classes with these fields changed."""
    return load_config({"niyama": fields}, {})


def knock(
    body: Any,
    headers: Any = None,
    *,
    echo: Echo | None = None,
    config: EngineConfig | None = None,
    path: str = COMPLETIONS,
    method: str = "POST",
    raise_app_exceptions: bool = True,
) -> httpx.Response:
    """One request through the middleware. body: bytes, an async generator of them, or anything that is JSON."""
    echo = echo if echo is not None else Echo()
    door = QoSMiddleware(echo, config if config is not None else EngineConfig())

    async def inside(scope, receive, send):
        scope["app"] = SimpleNamespace(state=SimpleNamespace(engine_client=echo.engine))
        await door(scope, receive, send)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(inside, raise_app_exceptions=raise_app_exceptions)
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            content = body if isinstance(body, bytes) or hasattr(body, "__aiter__") else json.dumps(body).encode()
            pairs = list((headers or {}).items()) if isinstance(headers, dict) or headers is None else list(headers)
            if not any(str(name).lower() == "content-type" for name, _ in pairs):
                pairs.append(("content-type", "application/json"))
            return await client.request(method, path, content=content, headers=pairs)

    return asyncio.run(ask())
