"""QoS on the endpoints of vLLM's OpenAI server, by one configuration.

Whoever must show a key and has none is turned away first. On the endpoints of PATHS one QoS is made of headers,
`service_tier` and `vllm_xargs`; what makes no sense or is not the client's to ask for is refused, and the response
tells what was served. Bodies elsewhere are not read: there the headers and the key are imposed on what the endpoint
asks of the engine. Clients have no say about vLLM's priority.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prometheus_client import Counter

from niyama.vllm.config import EngineConfig
from niyama.vllm.qos import KEY, VERSION, QoSError, show
from niyama.vllm.serving.answer import Answer, decided, expect_outcome, note_outcomes
from niyama.vllm.serving.bodies import (
    LONG_BODY_BYTES,
    MOST_CONTAINERS,
    UNWANTED,
    App,
    Gone,
    Piecewise,
    Receive,
    Scope,
    Send,
    TooLong,
    declared_length,
    discarded,
    has_too_many_parts,
    read,
    refuse,
    replay,
    turn_away,
    with_length,
)
from niyama.vllm.serving.http_qos import XARGS, Asked, ask, ask_by_headers, names_qos
from niyama.vllm.serving.keys import Headers, key_sha256, why_kept_out

MESSAGES, INVOCATIONS, BATCH = "/v1/messages", "/invocations", "/v1/chat/completions/batch"
#: The endpoints whose bodies are JSON and may have `vllm_xargs`.
PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", MESSAGES, INVOCATIONS, BATCH})
#: Those that take uploads, as forms.
AUDIO = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})
#: Others that generate: of their QoS, headers and key are known before the body is.
OTHERS = AUDIO | {"/inference/v1/generate", "/cohere/v2/chat", "/generative_scoring"}
#: Endpoints of PATHS that lose `vllm_xargs` in some version of vLLM: QoS holds there only if it can be imposed.
LOSE_XARGS = frozenset({MESSAGES, BATCH})
#: Of AUDIO, bodies that are passed on piece by piece.
FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")
PRIORITY_HEADER = b"x-vllm-priority"
_CANNOT_CONFINE = "this server cannot hold this endpoint to the classes of an API key; use /v1/chat/completions"


class _NoText(Exception):
    """The body's field of this name is no Unicode text: vLLM could not hand it to its engine, and would answer 500."""


class Endpoints:
    """vLLM's application, with QoS by one configuration. A request stays with the one that it came to.

    version: what the engine is told of the configuration. faults: counts by field and action. parser: one thread, so
    that long bodies share no more than a core.
    """

    def __init__(
        self, app: App, config: EngineConfig, version: str | None, faults: Counter, parser: ThreadPoolExecutor
    ) -> None:
        self._app, self.config, self._version = app, config, version
        self._fault_counter, self._parser = faults, parser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if self.config.client_priority == "strip":
            headers = [pair for pair in scope["headers"] if pair[0].lower() != PRIORITY_HEADER]
            scope = {**scope, "headers": headers}
        path = _path(scope)
        if scope["type"] == "http" and scope["method"] != "POST":
            await self._app(scope, receive, send)
        elif (why := why_kept_out(self.config, scope, path, datetime.now(UTC))) is not None:
            await turn_away(scope, send, why)
        elif scope["type"] == "websocket":
            await self._impose(scope, path, receive, send)
        elif path in AUDIO and _kind(scope) in FORMS:
            await self._upload(scope, path, receive, send)
        elif (body := await self._body(scope, receive, send)) is None:
            return  # the client has its answer, or left
        elif path in PATHS and _kind(scope) == b"application/json":
            await self._serve(scope, path, body, receive, send)
        else:
            await self._impose(scope, path, replay(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """The whole body; None when it was refused or did not come."""
        try:
            body = await read(receive, declared_length(scope), self.config.max_body_bytes)
        except Gone:
            return None
        except TooLong as found:
            await self._refuse_length("max_body_bytes", found.unread, receive, send)
            return None
        if len(body) > LONG_BODY_BYTES and await self._aside(has_too_many_parts, body):
            await refuse(send, 400, f"request body has more than {MOST_CONTAINERS} lists and objects; send fewer")
            return None
        return body

    async def _upload(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        """A form that may be too large to be held here."""
        limit = self.config.max_upload_bytes
        if declared_length(scope) > limit:
            await self._refuse_length("max_upload_bytes", True, receive, send)
            return
        form = Piecewise(receive, send, limit)
        try:
            await self._impose(scope, path, form.receive, form.send)
        except Exception:
            if not form.cut:
                raise
        if form.cut:
            await self._refuse_length("max_upload_bytes", form.unread, receive, send)

    async def _refuse_length(self, field: str, unread: bool, receive: Receive, send: Send) -> None:
        limit = getattr(self.config, field)
        text = f"request body is longer than {limit} bytes; send less, or raise {field}"
        await refuse(send, 413, text, unread=discarded(receive, UNWANTED * limit) if unread else None)

    async def _serve(self, scope: Scope, path: str, body: bytes, receive: Receive, send: Send) -> None:
        """An endpoint whose body may have QoS in it."""
        try:
            if len(body) > LONG_BODY_BYTES:
                asked, changed = await self._aside(self._ask, scope, body)
            else:
                asked, changed = self._ask(scope, body)
        except QoSError as error:
            await self._refuse_qos(send, error)
            return
        except _NoText as found:
            await refuse(send, 400, f"{found} holds a lone surrogate, which is no character; leave it out", str(found))
            return
        except RecursionError:
            await refuse(send, 400, "request body is nested too deeply; flatten it")
            return
        if asked is None:
            await self._impose(scope, path, replay(body, receive), send)
            return
        if not note_outcomes(_engine_client(scope)) and self.config.identities and path in LOSE_XARGS:
            await refuse(send, 403, _CANNOT_CONFINE)
            return
        self._count_fault(asked)
        tier = None if path == MESSAGES else asked.tier  # which is OpenAI's field
        answer = Answer(send, tier, expect_outcome(decided(asked), asked.served))
        await self._app(with_length(scope, len(changed)), replay(changed, receive), answer.send)

    async def _impose(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        """An endpoint whose body has no QoS for us to read; whether it generates shows when it asks the engine to."""
        watched, served = note_outcomes(_engine_client(scope)), None
        if path in OTHERS:
            if self.config.identities and not watched:
                await refuse(send, 403, _CANNOT_CONFINE)
                return
            try:
                asked = ask_by_headers(self.config, scope["headers"])
            except QoSError as error:
                await self._refuse_qos(send, error)
                return
            served = asked.served if names_qos(scope["headers"]) else None
        outcome = expect_outcome(partial(self._merged, scope["headers"]), served)
        await self._app(scope, receive, Answer(send, None, outcome).send if scope["type"] == "http" else send)

    async def _aside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns, computed where no stream has to wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._parser, function, *arguments)

    def _merged(self, headers: Headers, extra_args: dict[str, Any]) -> Asked:
        """What headers and an endpoint's own arguments ask for together. QoSError, which vLLM answers with 400."""
        own = {KEY: key_sha256(headers) if self.config.identities else None, VERSION: self._version}
        # our own, of before, are in the arguments of endpoints that use them several times
        given = {key: value for key, value in extra_args.items() if key not in own or value != own[key]}
        asked = ask(self.config, headers, {XARGS: given}, self._version)
        self._count_fault(asked)
        return asked

    def _count_fault(self, asked: Asked) -> None:
        if asked.fault is not None:
            self._fault_counter.labels(asked.fault.field, "defaulted").inc()

    async def _refuse_qos(self, send: Send, error: QoSError) -> None:
        self._fault_counter.labels(error.field, "refused").inc()
        await refuse(send, 403 if error.forbidden else 400, str(error), error.label)

    def _ask(self, scope: Scope, body: bytes) -> tuple[Asked | None, bytes]:
        """What is asked for, and the body for vLLM. None: not a request that QoS could be read from; vLLM has its own
        words for that."""
        try:
            values = json.loads(body)
        except ValueError:  # vLLM parses alike, and fails alike
            return None, body
        asked = ask(self.config, scope["headers"], values, self._version) if isinstance(values, dict) else None
        return asked, body if asked is None else _dumped(asked.body)


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


def _path(scope: Scope) -> str:
    return scope.get("path", "").removeprefix(scope.get("root_path", ""))


def _kind(scope: Scope) -> bytes:
    """The media type of the body; empty when it is not said."""
    kinds = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    return kinds[0].split(b";")[0].strip().lower() if kinds else b""


def _engine_client(scope: Scope) -> Any:
    """vLLM's, where Starlette keeps it; None in an application without."""
    return getattr(getattr(scope.get("app"), "state", None), "engine_client", None)
