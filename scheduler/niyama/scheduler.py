"""The scheduler as an object, for engines in Python: report events, take a step, get a plan.

The vLLM plug-in, `simulate --decision-log` and `replay` are such engines. The compiled simulator is the same kernel
without this object around it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba.core.config import DISABLE_JIT

from niyama.faults import refuse_fault, rule_error
from niyama.jit.layout import ANSWER, layout, step_by_address, tell
from niyama.kernel import Kernel
from niyama.kv import check_groups
from niyama.latency import Batch, LatencyModel, ModelCard
from niyama.policies import Policy
from niyama.queues import NONE, Queues, new_queues
from niyama.requests import RequestTable, new_table
from niyama.state import KV_BLOCK_TOKENS, NO_LIMIT, State, new_state
from niyama.step import ARRIVED, ENDED, LEFT, step

FIRST_ROWS = 256


class Arrival(NamedTuple):
    """What the scheduler is told of a new request. Seconds on the engine's clock, tokens."""

    arrival_s: float
    prompt_tokens: int
    deadline_slo_s: float
    tbt_s: float
    interactive: bool
    important: bool
    app: int
    tenant: int = 0


class Plan(NamedTuple):
    """One planned iteration: all decodes but those of `left_out`, and `tokens[i]` prompt tokens of request `rows[i]`.

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
    left_out: Sequence[int] = ()


class Timing(NamedTuple):
    """When the reported iteration ran and when the next one starts, in seconds on the engine's clock.

    ended_s may be a prediction (an engine that plans while the step is in flight); prefill_tokens: of that iteration.
    model_scale: measured over predicted step time so far, by which the predictor is stretched; step_spread: mean
    absolute error of its logarithm (`niyama.latency.correction`).
    """

    now_s: float
    began_s: float
    ended_s: float
    prefill_tokens: int
    model_scale: float = 1.0
    step_spread: float = 0.0


class Scheduler:
    """A scheduler with room for any number of live requests. Not thread-safe; only its own methods change it.

    kv_tokens: KV capacity, in blocks of block_tokens; kv_groups, step_tokens, ahead_tokens, align_tokens, tenants:
    as of `new_state`.
    apps: number of output-length histories. reuse_rows: False gives every request a row of its own, in order of
    arrival, so that ties of rank are decided as in the compiled simulator.
    `watch` is told of every step and what it decided (a decision log).
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
        ahead_tokens: int = 0,
        align_tokens: int = 0,
        tenants: int = 0,
        reuse_rows: bool = True,
        watch: Callable[[Timing, list[int], list[tuple[int, Arrival]], Plan], None] | None = None,
    ) -> None:
        self.policy, self.card, self.watch, self.step_tokens = policy, card, watch, step_tokens
        self._params, self._rules = policy.params(), policy.rules()
        self._model, self._unscaled, self._times, self._scale = card.build(), card.build().coef, card.times(), 1.0
        self.state: State = new_state(
            FIRST_ROWS, policy.max_running, apps, kv_tokens, policy.alpha_low, block_tokens,
            kv_groups=kv_groups and check_groups(kv_groups), step_tokens=step_tokens,
            ahead_tokens=ahead_tokens, align_tokens=align_tokens, tenants=tenants,
        )  # fmt: skip
        self.table: RequestTable = new_table(FIRST_ROWS)
        self._answer = np.zeros(ANSWER)
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
        """Report a new request; returns its row, which stays its own until the step after it is gone.

        Raises ValueError for a tenant that the scheduler was not made for.
        """
        if not 0 <= new.tenant < max(1, len(self.state.tenants)):
            wanted = f"0 to {len(self.state.tenants) - 1}, or tenants of Scheduler must be more"
            raise ValueError(f"tenant is {new.tenant}; it must be {wanted}")
        if not self._free_rows:
            self._grow()
        r = self._free_rows.pop()
        _write_row(self.table, r, new)
        self._arrivals.append((r, new))
        self.report(ARRIVED, r)
        return r

    def report(self, kind: int, row: int, value: int = 0) -> None:
        """Report one event (`niyama.step`); they are taken in at the next step, in this order."""
        self._events.extend((kind, row, value))
        if self._reuse_rows and (kind == ENDED or kind == LEFT):
            self._leaving.append(row)

    def step(self, timing: Timing) -> Plan:
        """Take in what was reported and plan the next iteration. Raises RuleError when a rule of the policy fails."""
        if timing.model_scale != self._scale:
            self._scale = timing.model_scale
            np.multiply(self._unscaled, self._scale, out=self._model.coef, where=self._times)
        self.state.totals["step_spread"] = timing.step_spread
        address, count = self._events.buffer_info()
        times_s = float(timing.began_s), float(timing.ended_s), float(timing.now_s)
        if DISABLE_JIT:
            self._step_plainly(int(timing.prefill_tokens), *times_s)
        else:
            step_by_address(self._layout, address, count // 3, int(timing.prefill_tokens), *times_s)
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

    def _step_plainly(self, prefill_tokens: int, *times_s: float) -> None:
        """The same with the objects themselves."""
        events = np.array(self._events, np.int32).reshape(-1, 3)
        reported = events, len(events), prefill_tokens, *times_s
        try:
            tell(self.state, step(self._kernel(), *reported), self._answer)
        except Exception as error:
            raise rule_error(self.policy, error) from error

    def _read_plan(self) -> Plan:
        """What the kernel left in the scheduler's lists and in the answer."""
        k, decodes, context, prefill_tokens, work, top_prefix, predicted_s, *totals, fault = self._answer.tolist()
        if fault:
            refuse_fault(self.policy, self.state, self._model)
        rows, tokens = [], []
        if k:
            rows, tokens = self.state.plan_ids[: int(k)].tolist(), self.state.plan_tokens[: int(k)].tolist()
        batch = Batch(int(decodes), int(context), int(prefill_tokens), work, int(top_prefix))
        plan = Plan(rows, tokens, batch, predicted_s, *map(int, totals))
        return plan._replace(left_out=self._left_out()) if self.policy.leaves_out else plan

    def _left_out(self) -> list[int]:
        running = self.state.running[: self.state.totals["running"]]
        return running[self.table.left_out[running] > 0].tolist()

    def _kernel(self) -> Kernel:
        return Kernel(self.state, self.table, self._params, self._rules, self._model)

    def _lay_out(self) -> np.ndarray | None:
        """Addresses of all that the kernel works on; None where there is no compiled kernel."""
        if DISABLE_JIT:
            return None
        return layout(self._kernel(), self._answer)

    def _grow(self) -> None:
        """Twice the rows; everything there is keeps its place."""
        rows = len(self.table.state)
        table, queues = new_table(2 * rows), new_queues(2 * rows)
        for new, old in zip(table, self.table, strict=True):
            new[:rows] = old
        width = self.state.queues.keys.shape[1]
        queues.keys[:, :width], queues.ids[:, :width] = self.state.queues.keys, self.state.queues.ids
        queues.size[:] = self.state.queues.size
        self.table, self.state = table, self.state._replace(queues=Queues(*queues))
        self._layout = self._lay_out()
        self._free_rows = list(range(rows, 2 * rows))[::-1]


def _write_row(t: RequestTable, r: int, new: Arrival) -> None:
    """Fill row `r` afresh."""
    for column in t:
        column[r] = 0
    t.queue[r] = NONE
    t.arrival_s[r], t.deadline_s[r] = new.arrival_s, new.arrival_s + new.deadline_slo_s
    t.tbt_s[r] = new.tbt_s if new.interactive else 0.0
    t.interactive[r], t.important[r], t.app[r], t.tenant[r] = new.interactive, new.important, new.app, new.tenant
    t.target_tokens[r] = new.prompt_tokens
