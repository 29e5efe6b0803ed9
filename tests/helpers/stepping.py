"""An engine in plain Python round the compiled decisions, as an engine's plug-in is one.

It shows each plan before it runs, and grants what it likes: `grant(planned)` tokens of each chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from niyama import Policy
from niyama.commit import commit_chunk, commit_decode, count_decodes, finish, observe_duration, observe_step
from niyama.kernel import Kernel
from niyama.kv import secure_decode_blocks
from niyama.latency import Batch, LatencyModel, seconds
from niyama.plan import plan
from niyama.requests import RequestTable
from niyama.sim.set_up import filled_table
from niyama.state import State, new_state
from niyama.waiting import enqueue
from tests.helpers.typed import typed
from tests.helpers.workloads import Case

ID = np.int32(0)  # as the columns of the state have requests and tokens


@dataclass(frozen=True)
class Planned:
    """One plan: table and counters as they were before it, and the live state after it."""

    now_s: float
    before: RequestTable
    totals_before: Any
    batch: Batch
    table: RequestTable
    scheduler: State
    predictor: LatencyModel

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """(request, tokens) in plan order."""
        s = self.scheduler
        return [(int(s.plan_ids[i]), int(s.plan_tokens[i])) for i in range(s.totals["planned"])]


def plans(case: Case, policy: Policy, grant: Callable[[int], int] = lambda planned: planned) -> Iterator[Planned]:
    """Serve the case to the end, yielding every plan between planning and execution."""
    requests, t = case.requests, filled_table(case.requests, np.arange(len(case.requests)))
    s = new_state(
        len(requests),
        policy.max_running,
        len(requests.classes),
        case.executor.kv_tokens,
        policy.alpha_low,
        tenants=requests.tenants,
    )
    predictor, executor = case.predictor.build(), case.executor.build()
    kernel = Kernel(s, t, policy.params(), policy.rules(), predictor)
    arrive, secure, plan_next = typed(enqueue, kernel, 0), typed(secure_decode_blocks, kernel), typed(plan, kernel, 0.0)
    decode, chunk = typed(commit_decode, s, t, ID, 1), typed(commit_chunk, kernel, ID, ID, 0.0)
    end, now_s, arrived, finished = typed(finish, s, t, ID), 0.0, 0, 0
    while finished < len(requests):
        if s.totals["queued"] + s.totals["running"] == 0:
            now_s = max(now_s, float(requests.arrival_s[arrived]))
        while arrived < len(requests) and requests.arrival_s[arrived] <= now_s:
            arrive(kernel, arrived)
            arrived += 1
        secure(kernel)
        before, totals_before = RequestTable(*(column.copy() for column in t)), copy(s.totals)
        batch = Batch(*plan_next(kernel, now_s))
        yield Planned(now_s, before, totals_before, batch, t, s, predictor)
        duration_s = float(seconds(executor, batch))
        now_s += duration_s
        short = [decode(s, t, r, 1) for r in s.running[: s.totals["running"]] if t.left_out[r] == 0]
        count_decodes(s, len(short), any(short))
        granted = 0
        for i in range(s.totals["planned"]):
            tokens = np.int32(grant(int(s.plan_tokens[i])))
            chunk(kernel, s.plan_ids[i], tokens, now_s)
            granted += int(tokens)
        observe_step(s, granted, duration_s)
        observe_duration(s, duration_s)
        for r in s.running[: s.totals["running"]].copy():
            if t.emitted_tokens[r] == requests.output_tokens[r]:
                end(s, t, r)
                finished += 1
