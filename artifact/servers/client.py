"""An open-loop load client: sends each request at its intended time, whatever the server does, and times every token.

All times are seconds on one monotonic clock since the run's start. Bodies are built beforehand and the garbage
collector rests during a run: what is measured should be the server.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

#: Ids of the tokens in prompts: single bytes in the tokenizers of `model_files`, and in any real vocabulary.
FIRST_TOKEN_ID, LAST_TOKEN_ID = 3, 252
SETTLE_S = 0.5  # between building everything and the first arrival
DATA, DONE = b"data:", b"[DONE]"


@dataclass(frozen=True)
class Shot:
    """One request: the body to send, the tokens it must bring, and when to send it."""

    intended_s: float
    body: bytes
    output_tokens: int


@dataclass
class Answer:
    """What came back for one shot. Mutable while it streams; None: did not happen.

    sent_s: when the request's headers left. token_s: when each token arrived; tokens merged into one chunk share a
    time. http_status: of the response. error: why it is not complete. served: what Niyama says of it, if it does.
    """

    sent_s: float | None = None
    token_s: list[float] = field(default_factory=list)
    http_status: int | None = None
    error: str | None = None
    served: dict[str, Any] | None = None


def prompt_ids(seed: int, request: int, tokens: int) -> list[int]:
    """Token ids of a request's prompt: a function of the arguments, and with no prefix in common with another's."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(request,)))
    return rng.integers(FIRST_TOKEN_ID, LAST_TOKEN_ID + 1, tokens).tolist()


def completion_body(
    model: str, prompt: Sequence[int], output_tokens: int, xargs: dict[str, Any], priority: int | None
) -> bytes:
    """The JSON of a streamed /v1/completions request for exactly `output_tokens` tokens.

    Every chunk is asked to carry the count of tokens so far, because one chunk may carry several.
    """
    fields: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": output_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if xargs:
        fields["vllm_xargs"] = xargs
    if priority is not None:
        fields["priority"] = priority
    return json.dumps(fields, separators=(",", ":")).encode()


async def fire(url: str, shots: Sequence[Shot], timeout_s: float) -> list[Answer]:
    """Send every shot to `url`/v1/completions at its time; their answers, in order, when the last has ended.

    Never waits for an answer before the next shot. timeout_s: longest a request may take, from its sending.
    """
    answers = [Answer() for _ in shots]
    loop = asyncio.get_running_loop()
    async with _session(timeout_s) as session:
        gc.collect()
        gc.disable()
        try:
            start_s = loop.time() + SETTLE_S
            tasks = []
            for shot, answer in zip(shots, answers, strict=True):
                await asyncio.sleep(max(0.0, start_s + shot.intended_s - loop.time()))
                tasks.append(asyncio.create_task(_send(session, url, shot, answer, start_s)))
            await asyncio.gather(*tasks)
        finally:
            gc.enable()
    return answers


def _session(timeout_s: float) -> aiohttp.ClientSession:
    """A session without a limit on connections that notes when a request's headers left."""
    tracing = aiohttp.TraceConfig()

    async def note(session: Any, context: Any, _: Any) -> None:
        answer, start_s = context.trace_request_ctx
        answer.sent_s = asyncio.get_running_loop().time() - start_s

    tracing.on_request_headers_sent.append(note)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        trace_configs=[tracing],
        read_bufsize=1 << 20,
    )


async def _send(session: aiohttp.ClientSession, url: str, shot: Shot, answer: Answer, start_s: float) -> None:
    """One request, start to end; whatever goes wrong is written into its answer."""
    now = asyncio.get_running_loop().time
    headers = {"Content-Type": "application/json"}
    try:
        async with session.post(
            f"{url}/v1/completions", data=shot.body, headers=headers, trace_request_ctx=(answer, start_s)
        ) as response:
            answer.http_status = response.status
            if response.status != 200:
                answer.error = f"HTTP {response.status}: {_short(await response.text())}"
                return
            ended = False
            async for event in _events(response.content):
                ended = event == DONE
                if not ended:
                    _take(json.loads(event), now() - start_s, answer)
            _check_answer(answer, shot, ended)
    except TimeoutError:
        answer.error = "timed out"
    except aiohttp.ClientError as error:
        answer.error = f"{type(error).__name__}: {_short(str(error))}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        answer.error = f"unreadable stream: {type(error).__name__}: {_short(str(error))}"


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The data of each server-sent event, as soon as it is whole; events may share a chunk or be split over several."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk.replace(b"\r\n", b"\n")).split(b"\n\n")
        for event in whole:
            if event.startswith(DATA):
                yield event[len(DATA) :].strip()


def _take(chunk: dict[str, Any], now_s: float, answer: Answer) -> None:
    """Note the tokens that a chunk brought. ValueError when they cannot be counted or the server reports an error."""
    if "error" in chunk:
        raise ValueError(f"server error: {chunk['error'].get('message', chunk['error'])}")
    transfer = chunk.get("kv_transfer_params")
    if transfer and "niyama" in transfer:
        answer.served = transfer["niyama"]
    usage = chunk.get("usage")
    if usage is None:
        if chunk["choices"] and chunk["choices"][0].get("text"):
            raise ValueError("a chunk carries text and no usage, so tokens cannot be counted")
        return
    answer.token_s += [now_s] * (usage["completion_tokens"] - len(answer.token_s))


def _check_answer(answer: Answer, shot: Shot, ended: bool) -> None:
    """Write an error into an answer that is not whole."""
    tokens = len(answer.token_s)
    if not ended:
        answer.error = "the stream ended early"
    elif tokens != shot.output_tokens:
        answer.error = (
            f"{abs(shot.output_tokens - tokens)} token(s) too {'few' if tokens < shot.output_tokens else 'many'}"
        )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:197]}..."
