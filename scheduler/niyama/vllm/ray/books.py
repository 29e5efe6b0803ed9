"""Which replica gets a request: the simulator's routing rules on what a real router knows. Knows nothing of Ray.

Statistics are what each replica says of itself now and then; what was sent since then is booked here, at once. A
replica that has said nothing for three periods is taken to be down.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from niyama.latency import ModelCard
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.own_rules import source_of
from niyama.qos import QoSClass
from niyama.sim.routers import Arriving, Router, Seen

DOWN_PERIODS = 3
CHUNK_TOKENS = 2048  # a prompt token's time is predicted for a chunk of so many
OUTPUT_GUESS = 300.0  # tokens, of which nothing is known when a request is routed
SOME_PROMPT = 500  # tokens, until the first request has come


@dataclass
class Replica:
    """What is known of one. sent: requests since it is known; booked: (when, prompt tokens) of those since `told`."""

    sent: int = 0
    booked: deque[tuple[float, int]] = field(default_factory=deque)
    told: Mapping[str, Any] = field(default_factory=dict)


class Books:
    """A router's books. Not thread-safe: Ray's router is asynchronous, in one thread."""

    def __init__(self, router: Router, card: ModelCard, period_s: float, seed: int = 0) -> None:
        self._cost, self._model, self._period_s = source_of(router.cost), card.build(), period_s  # type: ignore[arg-type]
        self._replicas: dict[str, Replica] = {}
        self._random, self._turn, self._requests, self._mean_prompt = random.Random(seed), -1, 0, float(SOME_PROMPT)

    def warm_up(self) -> None:
        """Load the compiled latency model: seconds, which the first request would wait for and the proxy would not."""
        seconds(self._model, with_prefill(empty_batch(1, 1), 0, 1))

    def choose(self, request: Arriving, told: Mapping[str, Mapping[str, Any] | None], now_s: float) -> list[str]:
        """The replicas' names, the best first, which is booked; down ones last.

        told: what each says of itself, with the time `t` when (seconds, of the same clock as now_s), or None.
        """
        names = list(told)
        if not names:
            return []
        self._replicas = {name: self._replicas.get(name, Replica()) for name in names}
        for name, said in told.items():
            self._hear(self._replicas[name], said)
        up = [name for name in names if not self._is_down(self._replicas[name], now_s)] or names
        drawn = self._random.sample(range(len(up)), min(2, len(up)))
        turn = self._turn
        order = sorted(
            range(len(up)),
            key=lambda i: (self._cost(request, self._see(request, up[i], i, len(up), drawn)), (i - turn - 1) % len(up)),
        )
        best = up[order[0]]
        self._turn = order[0]
        self._replicas[best].sent += 1
        self._replicas[best].booked.append((now_s, request.prompt_tokens))
        self._requests += 1
        self._mean_prompt += (request.prompt_tokens - self._mean_prompt) / self._requests
        return [up[i] for i in order] + [name for name in names if name not in up]

    def _hear(self, replica: Replica, said: Mapping[str, Any] | None) -> None:
        if said and said.get("t", 0.0) >= replica.told.get("t", 0.0):
            replica.told = said
            while replica.booked and replica.booked[0][0] < said["t"]:
                replica.booked.popleft()

    def _is_down(self, replica: Replica, now_s: float) -> bool:
        """It says so, or has said nothing for long; one that never said anything has just been started."""
        told = replica.told
        return bool(told) and (bool(told.get("down")) or now_s - told["t"] > DOWN_PERIODS * self._period_s)

    def _see(self, request: Arriving, name: str, index: int, replicas: int, drawn: list[int]) -> Seen:
        replica = self._replicas[name]
        said = replica.told
        running, context = int(said.get("running", 0)), int(said.get("context_tokens", 0))
        booked = sum(tokens for _, tokens in replica.booked)
        beside = empty_batch(running, context)
        per_token_s = float(seconds(self._model, with_prefill(beside, 0, CHUNK_TOKENS))) / CHUNK_TOKENS
        waiting = (said.get("waiting_tokens", 0) + booked) * per_token_s
        backlog = (said.get("waiting", 0) * self._mean_prompt + booked) * per_token_s
        return Seen(
            index,
            replicas,
            replica.sent,
            running + int(said.get("waiting", 0)) + len(replica.booked),
            waiting,
            max(waiting, backlog),
            waiting,  # the statistics do not tell classes apart
            request.prompt_tokens * per_token_s,
            float(seconds(self._model, empty_batch(running + 1, context))),
            1.0 - float(said.get("kv_used", 0.0)),
            np.inf,
            drawn.index(index) if index in drawn else 2,
        )


def arriving(body: Mapping[str, Any], classes: Mapping[str, QoSClass], default: str) -> Arriving:
    """A request as the router knows it, from an OpenAI request's body: four characters are taken for a token."""
    named = (body.get("vllm_xargs") or {}).get("niyama_class") or default
    qos = classes.get(named) or classes[default]
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        tokens = len(prompt)
    else:
        tokens = sum(map(len, _texts(prompt if prompt is not None else body.get("messages")))) // 4
    return Arriving(max(1, tokens), qos.interactive, qos.deadline_slo_s, qos.tbt_s or 0.0, True, OUTPUT_GUESS)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(value.get("content", value.get("text")))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
