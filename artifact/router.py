"""A reverse proxy before the servers of a system: the QoS class picks the pool, each pool spreads over its replicas.

    python -m artifact.router --pools POOLS.json --port N [--spread least-outstanding]

POOLS.json is a list of `{"name": ..., "classes": [...], "urls": [...]}`. Bodies stream through both ways, and a client
that goes away takes its request at the server with it. A replica that cannot be reached costs the request a 502 that
names it, and gets none until its /health answers again. It imports nothing of ours, which is why it is not in servers/:
so it starts at once and stays small beside the servers that are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

CLASS_HEADER, CLASS_KEY = "x-niyama-class", "niyama_class"
ROUND_ROBIN, LEAST_OUTSTANDING = SPREADS = ("round-robin", "least-outstanding")
HEALTH_PERIOD_S = 1.0
HEALTH_TIMEOUT_S = 2.0
MAX_BODY_BYTES = 64 << 20
# Of one hop only (RFC 9110, 7.6.1), or written anew by aiohttp.
HOP_HEADERS = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade host "
    "content-length".split()
)


class RouterError(ValueError):
    """The pools make no sense; one line: what and the fix."""


@dataclass
class Replica:
    """One server. Mutable: the router counts what it has outstanding and whether it can be reached."""

    url: str
    outstanding: int = 0
    healthy: bool = True


@dataclass
class Pool:
    """Replicas that serve the same classes. `turn` moves on with every request."""

    name: str
    classes: tuple[str, ...]
    replicas: tuple[Replica, ...]
    turn: int = field(default=0)

    def pick(self, spread: str) -> Replica | None:
        """The replica for the next request; None when none is healthy."""
        healthy = [replica for replica in self.replicas if replica.healthy]
        if not healthy:
            return None
        self.turn += 1
        start = self.turn - 1
        in_turn = [healthy[(start + i) % len(healthy)] for i in range(len(healthy))]
        return in_turn[0] if spread == ROUND_ROBIN else min(in_turn, key=lambda replica: replica.outstanding)


def parse_pools(rows: object) -> tuple[Pool, ...]:
    """Pools from JSON. Raises RouterError."""
    wanted = {"name", "classes", "urls"}
    if not isinstance(rows, list) or not rows:
        raise RouterError("pools: must be a list with at least one pool of name, classes and urls")
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != wanted or not all(row.values()):
            raise RouterError(f"pools: entry {i + 1} is {row!r}; give it name, classes and urls, none of them empty")
    pools = tuple(Pool(r["name"], tuple(r["classes"]), tuple(Replica(u.rstrip("/")) for u in r["urls"])) for r in rows)
    names = [name for pool in pools for name in pool.classes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RouterError(f"pools: class {twice!r} is in two pools; leave it in one")
    return pools


class Router:
    """Handlers and state of the proxy. Mutable: owned by its web application."""

    def __init__(self, pools: Sequence[Pool], spread: str = ROUND_ROBIN) -> None:
        if spread not in SPREADS:
            raise RouterError(f"spread is {spread!r}; use one of {', '.join(SPREADS)}")
        self.pools, self.spread = tuple(pools), spread
        self._session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """The web application; run it with handler_cancellation, or disconnects are not passed on."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/health", self.health)
        app.router.add_route("*", "/{path:.*}", self.forward)
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=HEALTH_TIMEOUT_S)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=timeout, auto_decompress=False
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
        body = await request.read()
        try:
            pool = self.pool_of(request.headers.get(CLASS_HEADER), body)
        except RouterError as error:
            return _refusal(400, str(error))
        replica = pool.pick(self.spread)
        if replica is None:
            return _refusal(503, f"pool {pool.name}: no replica is healthy; try again later")
        replica.outstanding += 1
        try:
            return await self._pass_on(request, body, replica)
        finally:
            replica.outstanding -= 1

    def pool_of(self, header: str | None, body: bytes) -> Pool:
        """The pool of the class that the header or the body's vllm_xargs name; without either, the last pool's.

        Pools stand in the order of urgency, so a request that asks for nothing gets the least urgent service.
        Raises RouterError for a class that no pool serves.
        """
        name = header if header is not None else _class_in(body)
        if name is None:
            return self.pools[-1]
        for pool in self.pools:
            if name in pool.classes:
                return pool
        known = ", ".join(c for pool in self.pools for c in pool.classes)
        raise RouterError(f"class {str(name)[:80]!r} is served by no pool; use one of {known}")

    async def _pass_on(self, request: web.Request, body: bytes, replica: Replica) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
        url, out = f"{replica.url}{request.raw_path}", None
        try:
            async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_HEADERS}
                out = web.StreamResponse(status=answer.status, headers=kept)
                await out.prepare(request)
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
                await out.write_eof()
                return out
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            if request.transport is None or request.transport.is_closing():
                raise  # the client has gone, not the replica
            replica.healthy = False
            if out is None or not out.prepared:
                return _refusal(502, f"replica {replica.url} cannot be reached ({type(error).__name__}); it is out")
            request.transport.abort()  # half an answer must not look like a whole one
            raise


def _class_in(body: bytes) -> str | None:
    """The class that a JSON body names; None when it names none or is no JSON, which the server will judge."""
    if CLASS_KEY.encode() not in body:
        return None
    try:
        return json.loads(body)["vllm_xargs"][CLASS_KEY]
    except (ValueError, KeyError, TypeError):
        return None


def _refusal(status: int, text: str) -> web.Response:
    """An error as OpenAI's clients expect it."""
    return web.json_response({"error": {"message": text, "type": "router", "code": status}}, status=status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; 2 when the pools make no sense."""
    parser = argparse.ArgumentParser(prog="python -m artifact.router", description=__doc__.splitlines()[0])
    parser.add_argument("--pools", type=Path, required=True, help="JSON list of pools: name, classes, urls")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spread", choices=SPREADS, default=ROUND_ROBIN)
    options = parser.parse_args(arguments)
    try:
        router = Router(parse_pools(json.loads(options.pools.read_text())), options.spread)
    except (OSError, ValueError) as error:
        print(f"error: {options.pools}: {error}", file=sys.stderr)
        return 2
    web.run_app(
        router.application(),
        host=options.host,
        port=options.port,
        handler_cancellation=True,
        access_log=None,
        print=None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
