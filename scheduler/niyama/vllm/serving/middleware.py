"""QoS at the door of vLLM's OpenAI server: `vllm serve ... --middleware niyama.vllm.QoSMiddleware`.

Reads the file that NIYAMA_CONFIG names. For completions, chat completions and responses it makes one QoS of headers,
`service_tier` and `vllm_xargs`, refuses what makes no sense or is not the client's to ask for, and tells in the
response what was served. Everything else passes as it came, less the client's say about vLLM's priority.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from prometheus_client import Counter

from niyama.vllm.config import EngineConfig, load_config
from niyama.vllm.metric_files import show_engine_metrics
from niyama.vllm.qos import QoSError, show
from niyama.vllm.serving.answer import Answer, expect_outcome, note_outcomes
from niyama.vllm.serving.http_qos import Asked, ask

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The endpoints whose `vllm_xargs` reach the scheduler and whose bodies are JSON.
PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses"})
PRIORITY_HEADER = b"x-vllm-priority"
#: Of a body that is too long, so many times the limit are read and thrown away.
UNWANTED = 2

# Read on import, not when the application is made: uvicorn takes one that fails in its start-up for one without a
# start-up, and would serve 500s; vLLM imports the class it is told of, and stops with the ConfigError.
_CONFIGURED = load_config(None, os.environ)


class _TooLong(Exception):
    """The body is longer than the configuration allows. unread: more of it is to come."""

    def __init__(self, unread: bool) -> None:
        super().__init__()
        self.unread = unread


class _NoText(Exception):
    """The body's field of this name is no Unicode text: vLLM could not hand it to its engine, and would answer 500."""


class _Gone(Exception):
    """The client left before its request was complete."""


@cache
def _faults() -> Counter:
    """One counter for each process, however many applications it makes."""
    return Counter("niyama_http_qos_faults", "Requests whose QoS the middleware did not accept.", ("field", "action"))


class QoSMiddleware:
    """An ASGI application around vLLM's. config: NIYAMA_CONFIG's when this module was imported, unless given."""

    def __init__(self, app: App, config: EngineConfig = _CONFIGURED) -> None:
        self._app, self._config = app, config
        self._fault_counter = _faults()
        show_engine_metrics(os.environ)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if self._config.client_priority == "strip":
            headers = [pair for pair in scope["headers"] if pair[0].lower() != PRIORITY_HEADER]
            scope = {**scope, "headers": headers}
        if not _takes_qos(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await _read(receive, _declared_length(scope), self._config.max_body_bytes)
        except _Gone:
            return
        except _TooLong as found:
            limit = self._config.max_body_bytes
            text = f"request body is longer than {limit} bytes; send less, or raise max_body_bytes"
            await _refuse(send, 413, text, unread=_discarded(receive, UNWANTED * limit) if found.unread else None)
            return
        await self._serve(scope, body, receive, send)

    async def _serve(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        try:
            asked = self._ask(scope, body)
            changed = body if asked is None else _dumped(asked.body)
        except QoSError as error:
            self._fault_counter.labels(error.field, "refused").inc()
            await _refuse(send, 403 if error.forbidden else 400, str(error), error.label)
            return
        except _NoText as found:
            await _refuse(send, 400, f"{found} holds a lone surrogate, which is no character; leave it out", str(found))
            return
        except RecursionError:
            await _refuse(send, 400, "request body is nested too deeply; flatten it")
            return
        if asked is None:
            await self._app(scope, _replay(body, receive), send)
            return
        if asked.fault is not None:
            self._fault_counter.labels(asked.fault.field, "defaulted").inc()
        note_outcomes(_engine_client(scope))
        answer = Answer(send, asked.served.class_name, asked.tier, expect_outcome())
        await self._app(_with_length(scope, len(changed)), _replay(changed, receive), answer.send)

    def _ask(self, scope: Scope, body: bytes) -> Asked | None:
        """None: not a request that QoS could be read from; vLLM has its own words for that."""
        try:
            values = json.loads(body)
        except ValueError:  # vLLM parses alike, and fails alike
            return None
        return ask(self._config, scope["headers"], values) if isinstance(values, dict) else None


def _dumped(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        field = next(key for key, value in body.items() if not _is_text({key: value}))
        raise _NoText(show(field).strip("'")) from None


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _takes_qos(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    if scope["path"].removeprefix(scope.get("root_path", "")) not in PATHS:
        return False
    kinds = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    return bool(kinds) and kinds[0].split(b";")[0].strip().lower() == b"application/json"


def _engine_client(scope: Scope) -> Any:
    """vLLM's, where Starlette keeps it; None in an application without."""
    return getattr(getattr(scope.get("app"), "state", None), "engine_client", None)


def _declared_length(scope: Scope) -> int:
    """Content-Length; 0 when there is none or none that means anything: what comes is counted anyway."""
    values = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() and len(values[0]) < 20 else 0


async def _read(receive: Receive, declared: int, limit: int) -> bytes:
    """The whole body. Raises _TooLong as soon as it is known to be beyond `limit`, _Gone when the client left."""
    if declared > limit:
        raise _TooLong(unread=True)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise _TooLong(unread=more)
        if not more:
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, then whatever comes: vLLM listens for clients that leave."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _with_length(scope: Scope, length: int) -> Scope:
    """The scope of a request whose body is now `length` bytes in one piece."""
    dropped = (b"content-length", b"transfer-encoding")
    headers = [pair for pair in scope["headers"] if pair[0].lower() not in dropped]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


async def _discarded(receive: Receive, most_bytes: int) -> None:
    """What a client goes on sending, up to a limit: one whose connection is closed meanwhile may not see the answer."""
    more = True
    while more and most_bytes > 0:
        message = await receive()
        more = message.get("more_body", False)
        most_bytes -= len(message.get("body", b""))


async def _refuse(
    send: Send, status: int, message: str, param: str | None = None, *, unread: Awaitable[None] | None = None
) -> None:
    """An error in OpenAI's format, as vLLM writes it. unread: awaited when it is sent, before the end is."""
    kind = {400: "BadRequestError", 403: "PermissionDeniedError", 413: "RequestEntityTooLargeError"}[status]
    body = json.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": unread is not None})
    if unread is not None:
        await unread
        await send({"type": "http.response.body", "body": b"", "more_body": False})
