"""A reverse proxy before the servers of a system: the QoS class picks the pool, each pool spreads over its replicas.

    python -m artifact.router --pools POOLS.json --port N [--spread least-outstanding]

POOLS.json is a list of `{"name": ..., "classes": [...], "urls": [...]}`. Answers stream through, and a client that goes
away takes its request at the server with it. A replica that cannot be reached gets no requests until its /health
answers again; a request of which it had got nothing yet goes to another one, any other is a 502 that names it. /metrics
is a 404 that names the replicas: each has counters of its own, so each is to be scraped by itself. The router imports
nothing of ours but its own modules, which is why it is not in servers/: so it starts at once and stays small beside the
servers that are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, MultiMapping
from yarl import URL

from artifact.router.bodies import MAX_BODY_BYTES, Bodies
from artifact.router.pools import CLASS_HEADER, ROUND_ROBIN, SPREADS, Pool, Replica, RouterError, parse_pools, pool_of

HEALTH_PERIOD_S = 1.0
HEALTH_TIMEOUT_S = 2.0
#: How long a connection to a replica is kept for the next request. uvicorn closes one after 5 s: a request that is sent
#: at that moment is lost, and nobody can tell whether the replica had begun it.
KEEPALIVE_S = 3.0
METRICS = "/metrics"
#: How its application is to be run: cancelled with its client, and bodies passed on as they came, inflated nowhere.
SERVED = {"handler_cancellation": True, "auto_decompress": False}
# Of one hop only (RFC 9110, 7.6.1), or written anew by aiohttp.
HOP_HEADERS = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade host "
    "content-length".split()
)


class _NotSent(Exception):
    """The replica cannot be reached, and has got nothing of the request."""


class Router:
    """Handlers and state of the proxy. Mutable: owned by its web application."""

    def __init__(self, pools: Sequence[Pool], spread: str = ROUND_ROBIN, bodies: Bodies | None = None) -> None:
        if spread not in SPREADS:
            raise RouterError(f"spread is {spread!r}; use one of {', '.join(SPREADS)}")
        self.pools, self.spread, self.bodies = tuple(pools), spread, bodies or Bodies()
        self._session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """The web application; run it with SERVED, or disconnects are not passed on and bodies are inflated."""
        app = web.Application()
        app.router.add_get("/health", self.health)
        app.router.add_route("*", "/{path:.*}", self.forward)
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=HEALTH_TIMEOUT_S)
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),  # a client's cookies are not for the next one
            timeout=timeout,
            auto_decompress=False,
            trace_configs=[tracing],
        )
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        await self._session.close()

    async def _watch(self) -> None:
        """Ask every replica for its health, for ever."""
        while True:
            await asyncio.gather(*(self._check(replica) for pool in self.pools for replica in pool.replicas))
            await asyncio.sleep(HEALTH_PERIOD_S)

    async def _check(self, replica: Replica) -> None:
        limit = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        try:
            async with self._session.get(f"{replica.url}/health", timeout=limit) as answer:
                replica.healthy = answer.status == 200
        except aiohttp.ClientError:
            replica.healthy = False
        except TimeoutError:
            pass  # busy is not dead: requests that fail take it out

    async def health(self, _: web.Request) -> web.Response:
        """200 while every pool has a healthy replica, else 503; says which are."""
        state = {pool.name: {r.url: r.healthy for r in pool.replicas} for pool in self.pools}
        whole = all(any(replica.healthy for replica in pool.replicas) for pool in self.pools)
        return web.json_response(state, status=200 if whole else 503)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Pass a request to a replica of its class's pool and stream the answer back."""
        try:
            target = _target(request)
            if _path(target).startswith(METRICS):  # as vLLM, which serves them at all that begins so
                raise self._no_metrics()
            async with self.bodies.received(request) as body:
                return await self._forward(request, body, target)
        except RouterError as error:
            return _refusal(error.status, str(error))

    def _no_metrics(self) -> RouterError:
        """One replica's counters now and another's then would look like counters that are set back."""
        urls = ", ".join(f"{replica.url}{METRICS}" for pool in self.pools for replica in pool.replicas)
        return RouterError(f"the router has no metrics; scrape each replica: {urls}", 404)

    async def _forward(self, request: web.Request, body: bytes, target: str) -> web.StreamResponse:
        header = request.headers.get(CLASS_HEADER)
        if header is None and len(self.pools) > 1 and request.headers.get("Content-Encoding", "identity") != "identity":
            raise RouterError(f"the class in a compressed body is not read; name it in header {CLASS_HEADER}", 415)
        pool, tried = pool_of(self.pools, header, body), []
        while (replica := pool.pick(self.spread, tried)) is not None:
            replica.outstanding += 1
            try:
                return await self._pass_on(request, body, replica, target)
            except _NotSent:
                replica.healthy = False
                tried.append(replica)
            finally:
                replica.outstanding -= 1
        if tried:
            raise RouterError(f"replica {', '.join(r.url for r in tried)} cannot be reached; it is out", 502)
        raise RouterError(f"pool {pool.name}: no replica is healthy; try again later", 503)

    async def _pass_on(self, request: web.Request, body: bytes, replica: Replica, target: str) -> web.StreamResponse:
        """The replica's answer. _NotSent when another may be asked instead; RouterError when it may have begun."""
        headers = _end_to_end(request.headers)
        sent, out = asyncio.Event(), None
        try:
            async with self._session.request(
                request.method, f"{replica.url}{target}", headers=headers, data=body or None, trace_request_ctx=sent
            ) as answer:
                out = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
                await out.prepare(request)
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
                await out.write_eof()
                return out
        except aiohttp.InvalidURL:
            raise RouterError(f"the request's target is {target[:80]!r}, which is no path") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            if request.transport is None or request.transport.is_closing():
                raise  # the client has gone, not the replica
            if not sent.is_set():
                raise _NotSent from error
            replica.healthy = False
            if out is None or not out.prepared:
                raise RouterError(
                    f"replica {replica.url} was lost before it answered ({type(error).__name__}); it may have worked "
                    "on the request, so no other was asked",
                    502,
                ) from error
            request.transport.abort()  # half an answer must not look like a whole one
            raise


async def _note_sent(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    """aiohttp is about to have sent a request's headers, after which the replica may be at work on it."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.set()


def _end_to_end(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """All headers that are not of one hop, each as often as it came; in lower case, or aiohttp's client would take a
    name that comes again in other letters for a new value."""
    return CIMultiDict((k.lower(), v) for k, v in headers.items() if k.lower() not in HOP_HEADERS)


def _target(request: web.Request) -> str:
    """Path and query, also of a target in absolute form (RFC 9112, 3.2.2)."""
    try:
        target = request.raw_path if request.raw_path.startswith("/") else URL(request.raw_path).raw_path_qs
        _path(target)
    except ValueError:
        target = ""
    if not target.startswith("/"):
        raise RouterError(f"the request's target is {request.raw_path[:80]!r}; send a path, such as /v1/completions")
    return target


def _path(target: str) -> str:
    """The path that a replica gets, decoded, from its last leading slash on."""
    return "/" + URL(f"http://replica{target}").path.lstrip("/")


def _refusal(status: int, text: str) -> web.Response:
    """An error as OpenAI's clients expect it."""
    return web.json_response({"error": {"message": text, "type": "router", "code": status}}, status=status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; 2 when the pools make no sense."""
    parser = argparse.ArgumentParser(prog="python -m artifact.router", description=__doc__.splitlines()[0])
    parser.add_argument("--pools", type=Path, required=True, help="JSON list of pools: name, classes, urls")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-body-bytes", type=int, default=MAX_BODY_BYTES, help="longest request body (%(default)s)")
    parser.add_argument("--spread", choices=SPREADS, default=ROUND_ROBIN)
    options = parser.parse_args(arguments)
    try:
        pools = parse_pools(json.loads(options.pools.read_text()))
        router = Router(pools, options.spread, Bodies(options.max_body_bytes))
    except (OSError, ValueError) as error:
        print(f"error: {options.pools}: {error}", file=sys.stderr)
        return 2
    web.run_app(
        router.application(),
        host=options.host,
        port=options.port,
        access_log=None,
        print=None,
        **SERVED,
    )
    return 0
