"""A stand-in for a vLLM server: the OpenAI completions stream, with faults on demand; and a thread to run it in."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "fake-0123"


@dataclass
class FakeEngine:
    """What it does with every request.

    merge: tokens per chunk. gap_s: between chunks. fault: one of the names below. served: what the last chunk says.
    seen: bodies of the requests so far; gone: how many clients left in the middle.
    """

    merge: int = 1
    gap_s: float = 0.0
    fault: str | None = None
    served: dict[str, Any] | None = None
    model: str = MODEL
    block_s: float = 0.0
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gone: int = 0
    healthy: bool = True

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/completions", self.complete)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.model}]})

    async def metrics(self, _: web.Request) -> web.Response:
        count = len(self.seen)
        lines = (
            "# HELP x",
            'vllm:num_preemptions_total{engine="0"} 2.0',
            f"vllm:iteration_tokens_total_count {count}.0",
        )
        return web.Response(text="\n".join(lines))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        if self.fault == "mute":  # it has the request, and is gone before it answers
            request.transport.abort()
            return web.Response()
        if self.fault == "http":
            return web.json_response({"error": {"message": "no room"}}, status=400)
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        try:
            await self._stream(out, request, body["max_tokens"])
        except (ConnectionError, asyncio.CancelledError):
            self.gone += 1
            raise
        return out

    async def _stream(self, out: web.StreamResponse, request: web.Request, tokens: int) -> None:
        wanted = tokens - 1 if self.fault == "short" else tokens
        sent = 0
        while sent < wanted:
            time.sleep(self.block_s)
            await asyncio.sleep(self.gap_s)
            sent = min(wanted, sent + self.merge)
            chunk: dict[str, Any] = {"choices": [{"index": 0, "text": "x" * self.merge}]}
            if self.fault != "uncounted":
                chunk["usage"] = {"completion_tokens": sent}
            data = f"data: {json.dumps(chunk)}\n\n".encode()
            if self.fault == "split":  # an event arrives in two pieces
                await out.write(data[:9])
                await asyncio.sleep(0.01)
                data = data[9:]
            await out.write(data)
            if self.fault == "error":
                await out.write(b'data: {"error": {"message": "engine died", "code": 500}}\n\n')
            if self.fault == "hang-up" and sent > 1:
                request.transport.abort()
                return
            if self.fault == "early-end" and sent > 1:
                await out.write_eof()
                return
        last: dict[str, Any] = {"choices": [], "usage": {"completion_tokens": sent}}
        if self.served is not None:
            last["kv_transfer_params"] = {"niyama": self.served}
        await out.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        await out.write_eof()


@contextmanager
def listening(app: web.Application, *, port: int = 0, **options: Any) -> Iterator[str]:
    """Run a web application in a thread of its own; its URL. options: of its runner."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, **{"handler_cancellation": True, "shutdown_timeout": 0.1, **options})
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        address.extend(runner.addresses[0])
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://{address[0]}:{address[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
