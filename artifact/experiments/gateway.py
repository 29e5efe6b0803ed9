"""Servers behind a gateway: what a gateway that holds batch requests back does to a fleet, step by step.

A compiled simulation knows all arrivals beforehand; a gateway decides from what it sees when a request goes on. So the
servers here are `niyama.Scheduler` objects, stepped in the order of their clocks, with the same kernel and the same
step times. Without a gateway one server gives the simulator's bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from niyama import Policy, load_card
from niyama.latency import ModelCard, seconds
from niyama.scheduler import Scheduler, Timing
from niyama.sim import Requests, Run
from niyama.sim.replica import in_order_of_removal
from niyama.sim.requests import arrival_of
from niyama.sim.run import blank_run, check_run
from niyama.step import ALL_DECODED, CHUNK, DECODED, ENDED


class Gateway(Protocol):
    """Decides when requests go on to a server. Requests are rows; times are in seconds."""

    def offer(self, row: int) -> None:
        """A request arrived."""

    def note(self, now_s: float, rows: np.ndarray, ended: Iterable[int]) -> None:
        """These got a token now; of them these have ended."""

    def released(self) -> Iterable[int]:
        """Requests that go on now."""


class Open:
    """No gateway: every request goes on at once."""

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def offer(self, row: int) -> None:
        """See `Gateway`."""
        self._waiting.append(row)

    def note(self, now_s: float, rows: np.ndarray, ended: Iterable[int]) -> None:
        """See `Gateway`."""

    def released(self) -> list[int]:
        """See `Gateway`."""
        found, self._waiting = self._waiting, []
        return found


@dataclass
class Aimd:
    """Additive increase, multiplicative decrease of the batch requests in flight, by what interactive ones measured.

    Every `period_s` it compares the 95th percentiles of their TTFT and of the gaps between their tokens in the period
    with the SLOs: when one is exceeded the limit is halved, else it grows by `step`. Interactive requests go on at
    once; batch requests in the order of their deadlines. The constants are ours: llm-d's batch gateway has such a rule,
    and its numbers are not published.
    """

    requests: Requests
    ttft_s: float
    tbt_s: float
    period_s: float = 5.0
    step: int = 4
    least: int = 1
    most: int = 256
    limit: float = 16.0
    _now: list[int] = field(default_factory=list)
    _held: deque[int] = field(default_factory=deque)
    _in_flight: int = 0
    _until_s: float = 0.0
    _ttft_s: list[float] = field(default_factory=list)
    _gap_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._interactive = np.array([c.interactive for c in self.requests.classes])[self.requests.class_index]
        self._last_s = np.full(len(self.requests), np.nan)

    def offer(self, row: int) -> None:
        """See `Gateway`."""
        (self._now if self._interactive[row] else self._held).append(row)

    def note(self, now_s: float, rows: np.ndarray, ended: Iterable[int]) -> None:
        """See `Gateway`."""
        own = rows[self._interactive[rows]]
        first = np.isnan(self._last_s[own])
        self._ttft_s += (now_s - self.requests.arrival_s[own[first]]).tolist()
        self._gap_s += (now_s - self._last_s[own[~first]]).tolist()
        self._last_s[own] = now_s
        self._in_flight -= sum(not self._interactive[row] for row in ended)
        if now_s >= self._until_s:
            self._adapt()
            self._until_s = now_s + self.period_s

    def _adapt(self) -> None:
        over = any(
            seen and np.quantile(seen, 0.95) > slo_s
            for seen, slo_s in ((self._ttft_s, self.ttft_s), (self._gap_s, self.tbt_s))
        )
        self.limit = max(self.least, self.limit / 2) if over else min(self.most, self.limit + self.step)
        self._ttft_s, self._gap_s = [], []

    def released(self) -> list[int]:
        """See `Gateway`."""
        found, self._now = self._now, []
        while self._held and self._in_flight < int(self.limit):
            found.append(self._held.popleft())
            self._in_flight += 1
        return found


class _Server:
    """One replica with a clock of its own."""

    def __init__(self, requests: Requests, policy: Policy, card: ModelCard, run: Run, place: int) -> None:
        sizes = {"kv_tokens": check_run(requests, card), "apps": int(requests.histories.max(initial=0)) + 1}
        self._scheduler = Scheduler(policy, card, reuse_rows=False, **sizes)
        self._requests, self._executor, self._run, self._place = requests, card.build(), run, place
        self._coming: deque[tuple[float, int]] = deque()
        self._request = np.zeros(len(requests), np.int64)  # of each row of the scheduler's
        self._outputs = np.zeros(len(requests), np.int64)
        self._arrived = self._finished = 0
        self._reported = (0.0, 0.0, 0)
        self.now_s = 0.0

    @property
    def unfinished(self) -> int:
        """Requests that were sent here and have not ended."""
        return len(self._coming) + self._arrived - self._finished

    @property
    def ready_s(self) -> float:
        """When its next iteration starts."""
        return self.now_s if self._arrived > self._finished else max(self.now_s, self._coming[0][0])

    def send(self, request: int, at_s: float) -> None:
        """A request comes at that time, which is not before any other's."""
        self._coming.append((at_s, request))
        self._run.replica[request] = self._place

    def step(self) -> tuple[np.ndarray, list[int]]:
        """One iteration; returns the requests that got a token at its end, and of them those that ended."""
        self.now_s = self.ready_s
        while self._coming and self._coming[0][0] <= self.now_s:
            self._arrive(self._coming.popleft()[1])
        scheduler, began_s = self._scheduler, self.now_s
        plan = scheduler.step(Timing(began_s, *self._reported))
        if plan.batch.decodes + plan.batch.prefill_tokens == 0:
            raise ValueError(f"policy {scheduler.policy.name!r} plans nothing at {began_s:g} s while requests wait")
        state, t = scheduler.state, scheduler.table
        running = state.running[: state.totals["running"]].copy()
        decoding = running[t.left_out[running] == 0]
        self.now_s += float(seconds(self._executor, plan.batch))
        if 0 < len(decoding) == len(running):
            scheduler.report(ALL_DECODED, 0)
        else:
            for row in decoding.tolist():
                scheduler.report(DECODED, row)
        done = []
        for row, tokens in zip(plan.rows, plan.tokens, strict=True):
            scheduler.report(CHUNK, row, tokens)
            if t.computed_tokens[row] + tokens == t.target_tokens[row]:
                done.append(row)
        came = np.concatenate([decoding, np.array(done, np.int32)])
        emitted, request = t.emitted_tokens[came], self._request[came]
        self._run.token_s[self._run.token_start[request] + emitted] = self.now_s
        last = emitted + 1 == self._outputs[came]
        ended = set(came[last].tolist())
        for row in _in_order(decoding, done, ended):
            scheduler.report(ENDED, row, int(self._outputs[row]))
        self._finished += len(ended)
        self._reported = (began_s, self.now_s, plan.batch.prefill_tokens)
        return request, request[last].tolist()

    def _arrive(self, request: int) -> None:
        requests, row = self._requests, self._arrived
        self._scheduler.arrive(arrival_of(requests, request))
        self._request[row], self._outputs[row] = request, requests.output_tokens[request]
        self._arrived += 1


def _in_order(decoding: np.ndarray, done: list[int], ended: set[int]) -> list[int]:
    """Those that ended, in the order in which the compiled simulator takes them out."""
    came = np.concatenate([decoding, np.array(done, np.int32)])
    return in_order_of_removal(came, [row for row in came.tolist() if row in ended])


def serve(requests: Requests, policy: Policy, latency: str, replicas: int, gateway: Gateway) -> Run:
    """Raw times of a fleet behind a gateway; each request goes to the server with the fewest unfinished ones."""
    run = blank_run(requests, np.zeros(len(requests), np.int32))
    card = load_card(latency)
    servers = [_Server(requests, policy, card, run, place) for place in range(replicas)]
    arrival_s, arrived, finished = requests.arrival_s, 0, 0
    while finished < len(requests):
        busy = [server for server in servers if server.unfinished]
        first = min(busy, key=lambda server: server.ready_s, default=None)
        if arrived < len(requests) and (first is None or arrival_s[arrived] <= first.ready_s):
            now_s = float(arrival_s[arrived])
            gateway.offer(arrived)
            arrived += 1
        elif first is None:
            raise ValueError("the gateway holds requests while nothing runs; its least limit must be at least 1")
        else:
            came, ended = first.step()
            now_s = first.now_s
            finished += len(ended)
            gateway.note(now_s, came, ended)
        for row in gateway.released():
            min(servers, key=lambda server: server.unfinished).send(row, now_s)
    return run
