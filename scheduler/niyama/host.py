"""The scheduler as an object, for hosts in Python: report events, take a turn, get a plan.

The vLLM plug-in, `simulate --decision-log` and `replay` are such hosts. The compiled simulator is the same kernel
without this object around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.core.config import DISABLE_JIT

from niyama.latency import Batch, LatencyModel, ModelCard
from niyama.policies import Policy
from niyama.queues import NONE, Queues, new_queues
from niyama.requests import RequestTable, new_table
from niyama.scheduler import (
    KV_BLOCK_TOKENS,
    KV_FREE_BLOCKS,
    PLANNED,
    PREDICTED_S,
    PREEMPTIONS,
    RELEGATIONS,
    UN_RELEGATIONS,
    Scheduler,
    new_scheduler,
)
from niyama.turn import ARRIVED, ENDED, LEFT, layout, turn, turn_by_address

FIRST_ROWS = 256


class Arrival(NamedTuple):
    """What the scheduler is told of a new request. Seconds on the host's clock, tokens."""

    arrival_s: float
    prompt_tokens: int
    deadline_slo_s: float
    tbt_s: float
    interactive: bool
    important: bool
    app: int


class Plan(NamedTuple):
    """One planned iteration: all decodes, and `tokens[i]` prompt tokens of request `rows[i]`, in order.

    relegations, un_relegations, preemptions, kv_free_blocks: the scheduler's running totals after planning.
    """

    rows: list[int]
    tokens: list[int]
    batch: Batch
    predicted_s: float
    relegations: int
    un_relegations: int
    preemptions: int
    kv_free_blocks: int


class Timing(NamedTuple):
    """When the reported iteration ran and when the next one starts, in seconds on the host's clock.

    ended_s may be a prediction (an engine that plans while the step is in flight); prefill_tokens: of that iteration.
    model_scale: measured over predicted step time so far, by which the predictor is stretched.
    """

    now_s: float
    began_s: float
    ended_s: float
    prefill_tokens: int
    model_scale: float = 1.0


class Host:
    """A scheduler with room for any number of live requests. Not thread-safe; only its own methods change it.

    kv_tokens: KV capacity, in blocks of block_tokens; apps: number of output-length histories. reuse_rows: False gives
    every request a row of its own, in order of arrival, so that ties of rank are decided as in the compiled simulator.
    `watch` is told of every turn and what it decided (a decision log).
    """

    def __init__(
        self,
        policy: Policy,
        card: ModelCard,
        *,
        kv_tokens: int,
        apps: int,
        block_tokens: int = KV_BLOCK_TOKENS,
        reuse_rows: bool = True,
        watch: Callable[[Timing, list[int], list[tuple[int, Arrival]], Plan], None] | None = None,
    ) -> None:
        self.policy, self.card, self.watch = policy, card, watch
        self._params, self._model, self._scale = policy.params(), card.build(), 1.0
        rules = policy.rules()
        self._rules = rules if DISABLE_JIT else tuple(rule.address for rule in rules)
        self.scheduler: Scheduler = new_scheduler(
            FIRST_ROWS, policy.max_running, apps, kv_tokens, policy.alpha_low, block_tokens
        )
        self.table: RequestTable = new_table(FIRST_ROWS)
        self._layout = layout(self.scheduler, self.table)
        self._free_rows = list(range(FIRST_ROWS))[::-1]
        self._reuse_rows = reuse_rows
        self._leaving: list[int] = []
        self._arrivals: list[tuple[int, Arrival]] = []
        self._events: list[int] = []  # kind, row, value, kind, row, value, ...
        self._buffer = np.zeros((64, 3), np.int32)

    @property
    def model(self) -> LatencyModel:
        """The predictor as it stands."""
        return self._model

    def arrive(self, new: Arrival) -> int:
        """Report a new request; returns its row, which stays its own until the turn after it is gone."""
        if not self._free_rows:
            self._grow()
        r = self._free_rows.pop()
        _write_row(self.table, r, new)
        self._arrivals.append((r, new))
        self.report(ARRIVED, r)
        return r

    def report(self, kind: int, row: int, value: int = 0) -> None:
        """Report one event (`niyama.turn`); they are taken in at the next turn, in this order."""
        self._events += (kind, row, value)
        if self._reuse_rows and (kind == ENDED or kind == LEFT):
            self._leaving.append(row)

    def report_all(self, events: list[int]) -> None:
        """Report many events, flattened to kind, row, value, ...; none of them an arrival or a departure."""
        self._events += events

    def turn(self, timing: Timing) -> Plan:
        """Take in what was reported and plan the next iteration."""
        n = len(self._events) // 3
        if n > len(self._buffer):
            self._buffer = np.zeros((2 * n, 3), np.int32)
        self._buffer.reshape(-1)[: 3 * n] = self._events
        if timing.model_scale != self._scale:
            self._scale = timing.model_scale
            self._model.coef[:] = self.card.coefficients
            self._model.coef[:] *= self._scale
        reported = self._model, self._buffer, n, int(timing.prefill_tokens)
        times_s = float(timing.began_s), float(timing.ended_s), float(timing.now_s)
        s = self.scheduler
        if DISABLE_JIT:
            batch = turn(s, self.table, self._params, self._rules, *reported, *times_s)
        else:
            batch = turn_by_address(self._layout, self._params, *self._rules, *reported, *times_s)
        k, count = int(s.count[PLANNED]), s.count
        plan = Plan(
            s.plan_ids[:k].tolist(),
            s.plan_tokens[:k].tolist(),
            batch,
            float(s.gauge[PREDICTED_S]),
            int(count[RELEGATIONS]),
            int(count[UN_RELEGATIONS]),
            int(count[PREEMPTIONS]),
            int(count[KV_FREE_BLOCKS]),
        )
        events, arrivals, self._events, self._arrivals = self._events, self._arrivals, [], []
        self._free_rows += self._leaving
        self._leaving = []
        if self.watch is not None:
            self.watch(timing, events, arrivals, plan)
        return plan

    def _grow(self) -> None:
        """Twice the rows; everything there is keeps its place."""
        rows = len(self.table.state)
        table, queues = new_table(2 * rows), new_queues(2 * rows)
        for new, old in zip(table, self.table, strict=True):
            new[:rows] = old
        width = self.scheduler.queues.keys.shape[1]
        queues.keys[:, :width], queues.ids[:, :width] = self.scheduler.queues.keys, self.scheduler.queues.ids
        queues.size[:] = self.scheduler.queues.size
        self.table, self.scheduler = table, self.scheduler._replace(queues=Queues(*queues))
        self._layout = layout(self.scheduler, self.table)
        self._free_rows = list(range(rows, 2 * rows))[::-1]


def _write_row(t: RequestTable, r: int, new: Arrival) -> None:
    """Fill row `r` afresh."""
    for column in t:
        column[r] = 0
    t.queue[r] = NONE
    t.arrival_s[r], t.deadline_s[r] = new.arrival_s, new.arrival_s + new.deadline_slo_s
    t.tbt_s[r] = new.tbt_s if new.interactive else 0.0
    t.interactive[r], t.important[r], t.app[r] = new.interactive, new.important, new.app
    t.target_tokens[r] = new.prompt_tokens
