"""What the client is told of how it was served: headers, the echoed `service_tier`, and `kv_transfer_params.niyama`.

The scheduler puts `{"niyama": {"class": ..., "relegated": ...}}` into a request's last output. vLLM passes it to whole
responses as `kv_transfer_params`, and from 0.33 on to a stream's chunks with a finish_reason. For older versions the
same is done here; what is needed for it is noted where the outputs come from the engine, in this very process. There,
too, a request's QoS is imposed, so that it holds on every endpoint, whichever fields of a body that endpoint passes on.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from niyama.vllm.qos import PREFIX, Served
from niyama.vllm.serving.http_qos import XARGS, Asked

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

FIELD, NIYAMA, EXTRA_ARGS = "kv_transfer_params", "niyama", "extra_args"
_EVENT_END = b"\n\n"
_DATA = b"data: {"


class Outcome:
    """How the request at hand is served: `served` is what it was promised, as far as known; the engine's last output
    sets `niyama`. decide: from the `extra_args` that an endpoint made to what is asked for; it may raise QoSError.
    """

    def __init__(self, decide: Callable[[dict[str, Any]], Asked], served: Served | None = None) -> None:
        self.niyama: dict[str, Any] | None = None
        self.decide, self.served = decide, served

    def impose(self, prompt: Any, sampling_params: Any) -> None:
        """Give the engine this request's QoS, in place of whatever the endpoint passed on of it.

        prompt: a preprocessed one has sampling parameters of its own.
        """
        asked = self.decide(getattr(sampling_params, EXTRA_ARGS, None) or {})
        self.served = asked.served
        for parameters in (sampling_params, getattr(prompt, "sampling_params", None)):
            if hasattr(parameters, EXTRA_ARGS):
                parameters.extra_args = asked.body[XARGS]


_outcome: ContextVar[Outcome | None] = ContextVar("niyama_outcome", default=None)


def expect_outcome(decide: Callable[[dict[str, Any]], Asked], served: Served | None = None) -> Outcome:
    """The outcome of the request that this task, and the tasks it starts, will serve."""
    outcome = Outcome(decide, served)
    _outcome.set(outcome)
    return outcome


def decided(asked: Asked) -> Callable[[dict[str, Any]], Asked]:
    """To impose what was read from the body already, with its other arguments as the endpoint made them."""
    own = {key: value for key, value in asked.body[XARGS].items() if str(key).startswith(PREFIX)}

    def decide(extra_args: dict[str, Any]) -> Asked:
        others = {key: value for key, value in extra_args.items() if not str(key).startswith(PREFIX)}
        return replace(asked, body={XARGS: {**others, **own}})

    return decide


def note_outcomes(engine_client: Any) -> bool:
    """From now on `engine_client.generate` imposes QoS and notes outcomes; once for each client.

    engine_client: vLLM's `AsyncLLM`, or alike. False: it is none.
    """
    generate = getattr(engine_client, "generate", None)
    if generate is None or getattr(generate, "notes_outcomes", False):
        return generate is not None

    async def noting(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        outcome = _outcome.get()
        if outcome is not None:
            given = dict(zip(("prompt", "sampling_params"), args, strict=False)) | kwargs
            outcome.impose(given.get("prompt"), given.get("sampling_params"))
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
    return True


def promised(served: Served) -> list[tuple[bytes, bytes]]:
    """Headers that tell the class, and the SLOs after clamping."""
    slos_s = {"ttft": served.deadline_slo_s, "tbt": served.tbt_s} if served.interactive else {}
    slos_s = slos_s or {"ttlt": served.deadline_slo_s}
    told = [(f"x-niyama-slo-{slo}-ms".encode(), str(round(value * 1000)).encode()) for slo, value in slos_s.items()]
    return [(b"x-niyama-class", served.class_name.encode()), *told]


class Answer:
    """An ASGI `send` that adds to the response. One for each request."""

    def __init__(self, send: Send, tier: str | None, outcome: Outcome) -> None:
        self._send, self._tier, self._outcome = send, tier, outcome
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
        if self._outcome.served is not None:
            headers += promised(self._outcome.served)
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
