"""What the client is told of how it was served: headers, the echoed `service_tier`, and `kv_transfer_params.niyama`.

The scheduler puts `{"niyama": {"class": ..., "relegated": ...}}` into a request's last output. vLLM passes it to whole
responses as `kv_transfer_params`, and from 0.33 on to a stream's chunks with a finish_reason. For older versions the
same is done here; what is needed for it is noted where the outputs come from the engine, in this very process.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

FIELD, NIYAMA = "kv_transfer_params", "niyama"
_EVENT_END = b"\n\n"
_DATA = b"data: {"


class Outcome:
    """How the HTTP request at hand was served: `niyama` is set by the engine's last output."""

    def __init__(self) -> None:
        self.niyama: dict[str, Any] | None = None


_outcome: ContextVar[Outcome | None] = ContextVar("niyama_outcome", default=None)


def expect_outcome() -> Outcome:
    """The outcome of the request that this task, and the tasks it starts, will serve."""
    outcome = Outcome()
    _outcome.set(outcome)
    return outcome


def note_outcomes(engine_client: Any) -> None:
    """From now on `engine_client.generate` notes outcomes; once for each client. vLLM's `AsyncLLM`, or alike."""
    generate = getattr(engine_client, "generate", None)
    if generate is None or getattr(generate, "notes_outcomes", False):
        return

    async def noting(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        outcome = _outcome.get()
        outputs = generate(*args, **kwargs)
        try:
            async for output in outputs:
                told = getattr(output, FIELD, None)
                if outcome is not None and isinstance(told, dict) and isinstance(told.get(NIYAMA), dict):
                    outcome.niyama = told[NIYAMA]
                yield output
        finally:
            await outputs.aclose()  # or vLLM would learn of a client that left only from the garbage collector

    noting.notes_outcomes = True
    engine_client.generate = noting


class Answer:
    """An ASGI `send` that adds to the response. One for each request."""

    def __init__(self, send: Send, class_name: str, tier: str | None, outcome: Outcome) -> None:
        self._send, self._class_name, self._tier, self._outcome = send, class_name, tier, outcome
        self._held: Message | None = None  # the start of a JSON response, until its body is known
        self._body = bytearray()
        self._streams = False

    async def send(self, message: Message) -> None:
        """Pass a message of the application on, at once or when it is complete."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._held is not None:
            await self._hold(message)
        else:
            chunk = message.get("body", b"")
            if self._streams and self._outcome.niyama is not None and chunk:
                message = {**message, "body": told_in_chunk(bytes(chunk), self._outcome.niyama)}
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        kinds = [value.lower() for name, value in headers if name.lower() == b"content-type"]
        self._streams = any(kind.startswith(b"text/event-stream") for kind in kinds)
        headers.append((b"x-niyama-class", self._class_name.encode()))
        if self._outcome.niyama is not None:
            relegated = b"true" if self._outcome.niyama.get("relegated") else b"false"
            headers.append((b"x-niyama-relegated", relegated))
        message = {**message, "headers": headers}
        whole = message["status"] == 200 and any(kind.startswith(b"application/json") for kind in kinds)
        if self._tier is not None and whole:
            self._held = message
        else:
            await self._send(message)

    async def _hold(self, message: Message) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = _echoing(bytes(self._body), self._tier)
        headers = [pair for pair in self._held["headers"] if pair[0].lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**self._held, "headers": headers})
        await self._send({**message, "body": body})


def _echoing(body: bytes, tier: str | None) -> bytes:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return _dumped({**values, "service_tier": tier}) if isinstance(values, dict) else body


def told_in_chunk(chunk: bytes, niyama: dict[str, Any]) -> bytes:
    """Server-sent events, with `kv_transfer_params.niyama` in those that carry a finish_reason and lack it."""
    return _EVENT_END.join(_told_in_event(event, niyama) for event in chunk.split(_EVENT_END))


def _told_in_event(event: bytes, niyama: dict[str, Any]) -> bytes:
    if not event.startswith(_DATA) or b'"finish_reason"' not in event:
        return event
    try:
        values = json.loads(event[len(_DATA) - 1 :])
    except (ValueError, RecursionError):
        return event
    choices = values.get("choices")
    if values.get(FIELD) or not isinstance(choices, list):
        return event
    if not any(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices):
        return event
    return _DATA[:-1] + _dumped({**values, FIELD: {NIYAMA: niyama}})


def _dumped(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
