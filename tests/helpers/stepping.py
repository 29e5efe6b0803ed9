"""A host in plain Python round the compiled decisions, as an engine's plug-in is one.

It shows each plan before it runs, and grants what it likes: `grant(planned)` tokens of each chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from niyama import Policy
from niyama.commit import (
    commit_chunk,
    commit_decode,
    count_decodes,
    enqueue,
    observe_step,
)
from niyama.latency import Batch, LatencyModel, seconds
from niyama.plan import plan
from niyama.release import finish, secure_decode_blocks
from niyama.requests import RequestTable
from niyama.scheduler import PLANNED, QUEUED, RUNNING, Scheduler, new_scheduler
from niyama.sim.run import _filled_table
from tests.helpers.workloads import Case


@dataclass(frozen=True)
class Planned:
    """One plan: table and counters as they were before it, and the live state after it."""

    now_s: float
    before: RequestTable
    count_before: np.ndarray
    batch: Batch
    table: RequestTable
    scheduler: Scheduler
    predictor: LatencyModel

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """(request, tokens) in plan order."""
        s = self.scheduler
        return [(int(s.plan_ids[i]), int(s.plan_tokens[i])) for i in range(s.count[PLANNED])]


def host(case: Case, policy: Policy, grant: Callable[[int], int] = lambda planned: planned) -> Iterator[Planned]:
    """Serve the case to the end, yielding every plan between planning and execution."""
    requests, t = case.requests, _filled_table(case.requests, np.arange(len(case.requests)))
    s = new_scheduler(
        len(requests), policy.max_running, len(requests.classes), case.executor.kv_tokens, policy.alpha_low
    )
    p, rules = policy.params(), policy.rules()
    predictor, executor = case.predictor.build(), case.executor.build()
    now_s, arrived, finished = 0.0, 0, 0
    while finished < len(requests):
        if s.count[QUEUED] + s.count[RUNNING] == 0:
            now_s = max(now_s, float(requests.arrival_s[arrived]))
        while arrived < len(requests) and requests.arrival_s[arrived] <= now_s:
            enqueue(s, t, p, rules, arrived)
            arrived += 1
        secure_decode_blocks(s, t, p, rules)
        before, count_before = RequestTable(*(column.copy() for column in t)), s.count.copy()
        batch = Batch(*plan(s, t, p, rules, predictor, now_s))
        yield Planned(now_s, before, count_before, batch, t, s, predictor)
        duration_s = float(seconds(executor, batch))
        now_s += duration_s
        short = [commit_decode(s, t, r, 1) for r in s.running[: s.count[RUNNING]]]
        count_decodes(s, len(short), any(short))
        granted = 0
        for i in range(s.count[PLANNED]):
            tokens = np.int32(grant(int(s.plan_tokens[i])))
            commit_chunk(s, t, p, rules, s.plan_ids[i], tokens, now_s)
            granted += int(tokens)
        observe_step(s, granted, duration_s)
        for r in s.running[: s.count[RUNNING]].copy():
            if t.emitted_tokens[r] == requests.output_tokens[r]:
                finish(s, t, r)
                finished += 1
