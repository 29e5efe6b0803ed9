"""The scheduler as an object, for hosts in Python: report events, take a turn, get a plan.

The vLLM plug-in, `simulate --decision-log` and `replay` are such hosts. The compiled simulator is the same kernel
without this object around it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba.core.config import DISABLE_JIT

from niyama.faults import refuse_fault, rule_error
from niyama.kv import check_groups
from niyama.latency import Batch, LatencyModel, ModelCard
from niyama.policies import Policy
from niyama.queues import NONE, Queues, new_queues
from niyama.requests import RequestTable, new_table
from niyama.scheduler import KV_BLOCK_TOKENS, NO_LIMIT, Scheduler, new_scheduler
from niyama.turn import ANSWER, ARRIVED, ENDED, LEFT, layout, tell, turn, turn_by_address

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

    kv_tokens: KV capacity, in blocks of block_tokens; kv_groups, step_tokens: as of `new_scheduler`.
    apps: number of output-length histories. reuse_rows: False gives every request a row of its own, in order of
    arrival, so that ties of rank are decided as in the compiled simulator.
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
        kv_groups: Sequence[Sequence[int]] | None = None,
        step_tokens: int = NO_LIMIT,
        reuse_rows: bool = True,
        watch: Callable[[Timing, list[int], list[tuple[int, Arrival]], Plan], None] | None = None,
    ) -> None:
        self.policy, self.card, self.watch = policy, card, watch
        self._params, self._rules = policy.params(), policy.rules()
        self._model, self._unscaled, self._times, self._scale = card.build(), card.build().coef, card.times(), 1.0
        self.scheduler: Scheduler = new_scheduler(
            FIRST_ROWS, policy.max_running, apps, kv_tokens, policy.alpha_low, block_tokens,
            kv_groups=kv_groups and check_groups(kv_groups), step_tokens=step_tokens,
        )  # fmt: skip
        self.table: RequestTable = new_table(FIRST_ROWS)
        self._numbers, self._answer = np.array(self._params, np.float64), np.zeros(ANSWER)
        self._layout = self._lay_out()
        self._free_rows = list(range(FIRST_ROWS))[::-1]
        self._reuse_rows = reuse_rows
        self._leaving: list[int] = []
        self._arrivals: list[tuple[int, Arrival]] = []
        self._events = array("i")  # kind, row, value, kind, row, value, ...

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
        self._events.extend((kind, row, value))
        if self._reuse_rows and (kind == ENDED or kind == LEFT):
            self._leaving.append(row)

    def turn(self, timing: Timing) -> Plan:
        """Take in what was reported and plan the next iteration. Raises RuleError when a rule of the policy fails."""
        if timing.model_scale != self._scale:
            self._scale = timing.model_scale
            np.multiply(self._unscaled, self._scale, out=self._model.coef, where=self._times)
        address, count = self._events.buffer_info()
        times_s = float(timing.began_s), float(timing.ended_s), float(timing.now_s)
        if DISABLE_JIT:
            self._turn_plainly(int(timing.prefill_tokens), *times_s)
        else:
            turn_by_address(self._layout, address, count // 3, int(timing.prefill_tokens), *times_s)
        plan = self._read_plan()
        if self.watch is not None:
            self.watch(timing, self._events.tolist(), self._arrivals, plan)
        if self._arrivals:
            self._arrivals = []
        del self._events[:]
        if self._leaving:
            self._free_rows += self._leaving
            self._leaving = []
        return plan

    def _turn_plainly(self, prefill_tokens: int, *times_s: float) -> None:
        """The same with the objects themselves."""
        s, events = self.scheduler, np.array(self._events, np.int32).reshape(-1, 3)
        reported = events, len(events), prefill_tokens, *times_s
        try:
            tell(s, turn(s, self.table, self._params, self._rules, self._model, *reported), self._answer)
        except Exception as error:
            raise rule_error(self.policy, error) from error

    def _read_plan(self) -> Plan:
        """What the kernel left in the scheduler's lists and in the answer."""
        k, decodes, context, prefill_tokens, work, top_prefix, predicted_s, *totals, fault = self._answer.tolist()
        if fault:
            refuse_fault(self.policy, self.scheduler, self._model)
        rows, tokens = [], []
        if k:
            rows, tokens = self.scheduler.plan_ids[: int(k)].tolist(), self.scheduler.plan_tokens[: int(k)].tolist()
        batch = Batch(int(decodes), int(context), int(prefill_tokens), work, int(top_prefix))
        return Plan(rows, tokens, batch, predicted_s, *map(int, totals))

    def _lay_out(self) -> np.ndarray | None:
        """Addresses of all that the kernel works on; None where there is no compiled kernel."""
        if DISABLE_JIT:
            return None
        addresses = tuple(rule.address for rule in self._rules)
        return layout(self.scheduler, self.table, self._numbers, addresses, self._model, self._answer)

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
        self._layout = self._lay_out()
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
