"""One simulated replica of an engine that plans ahead, as vLLM's asynchronous scheduling does; compiled.

The next iteration is planned when the one before it begins, not when it ends. So the plan counts on the predicted end
of the iteration in flight, sees no arrival after its beginning, and still counts requests that end with it: the engine
knows that they have had all their tokens and leaves them out, and their KV comes free one plan later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from niyama.commit import commit_chunk, commit_decode, count_decodes, leave, observe_duration, observe_step
from niyama.jit import Numbers, compiled, record
from niyama.kv import secure_decode_blocks
from niyama.latency.model import Batch, seconds
from niyama.plan import plan
from niyama.sim.learning import learn_step
from niyama.sim.noise import noise_factor
from niyama.sim.replica import (
    admit,
    engine_batch,
    mark_scheduled,
    next_arrival_s,
    write_log,
)
from niyama.state import NO_FAULT


@dataclass(slots=True)
class InFlight(Numbers):
    """Of the iteration in flight: its batch, its predicted duration, and how many requests end with it."""

    decodes: int = 0
    decode_context: int = 0
    chunks: int = 0
    prefill_tokens: int = 0
    prefill_work: float = 0.0
    top_prefix: int = 0
    predicted_s: float = 0.0
    scale: float = 1.0  # by which the predictor was stretched then
    ending: int = 0
    plans: int = 0  # made so far


class Flight(NamedTuple):
    """The iteration that is planned and not committed yet; its chunks stand in the scheduler's plan. Mutable arrays."""

    numbers: Any  # InFlight, as a record
    ending: np.ndarray  # int32[2 * (max_running + 1)]; requests that end with the iteration in flight
    held_at: np.ndarray  # int64[n]; the last plan before which the request held KV


def new_flight(requests: int, max_running: int) -> Flight:
    """Nothing in flight."""
    ending, held_at = np.zeros(2 * (max_running + 1), np.int32), np.full(requests, -1, np.int64)
    return Flight(record(InFlight()), ending, held_at)


@compiled
def advance_overlapped(w, f, k, executor, most_iterations):
    """`niyama.sim.replica.advance`, planning ahead: a round begins the iteration in flight and plans the next one."""
    s, n, rows = k.state, w.progress.sent, len(w.log)
    now_s = w.progress.now_s
    stop = w.progress.iterations + most_iterations
    while w.progress.finished < n and w.progress.iterations < stop and not (0 < rows <= w.progress.logged):
        if s.totals.fault != NO_FAULT or now_s >= w.progress.until_s:
            break
        batch, predicted_s, scale, duration_s = _in_flight(f), f.numbers.predicted_s, f.numbers.scale, 0.0
        if _tokens(batch) > 0:
            duration_s = seconds(executor, batch) * noise_factor(w.noise, w.progress.iterations)
            if rows > 0:
                write_log(w, s, batch, now_s, duration_s, predicted_s, f.numbers.chunks)
            mark_scheduled(w, s, now_s)
            w.progress.iterations += 1
        predicted_end_s = now_s + predicted_s
        _commit(w, f, k, predicted_end_s, now_s + duration_s)
        if s.totals.queued + s.totals.running == 0 and w.progress.finished < n:
            now_s = max(now_s, next_arrival_s(w))
        admit(w, k, now_s)
        if predicted_s > 0.0:
            # not predicted_s itself: in the digits of the times that an engine in Python reports
            observe_step(s, batch.prefill_tokens, predicted_end_s - now_s)
            if k.params.leaves_out:
                observe_duration(s, predicted_end_s - now_s)
        _note_holders(f, s)
        secure_decode_blocks(k)
        plan(k, now_s + predicted_s)
        _grant(w, f, k)
        now_s += duration_s
        if w.learning.learns and duration_s > 0.0:
            learn_step(w.learning, k, predicted_s, scale, duration_s)
        if _tokens(batch) == 0 and s.totals.planned + s.totals.running == 0 and s.totals.queued > 0:
            break
    w.progress.now_s = now_s


@compiled
def _tokens(batch):
    return batch.decodes + batch.prefill_tokens


@compiled
def _in_flight(f):
    n = f.numbers
    return Batch(n.decodes, n.decode_context, n.prefill_tokens, n.prefill_work, n.top_prefix)


@compiled
def _commit(w, f, k, predicted_end_s, end_s):
    """The iteration in flight counts as done, by its predicted end; those that ended with the one before leave."""
    s, t = k.state, k.table
    ended, n, decodes, short = f.numbers.ending, s.totals.running, 0, False
    for i in range(n):
        r = s.running[i]
        if t.emitted_tokens[r] < w.output_tokens[r] and t.left_out[r] == 0:
            w.token_s[w.token_start[r] + t.emitted_tokens[r]] = end_s
            short |= commit_decode(s, t, r, 1)
            decodes += 1
            _note_ending(w, f, t, r)
    if decodes > 0:
        count_decodes(s, decodes, short)
    for i in range(s.totals.planned):
        r = s.plan_ids[i]
        if commit_chunk(k, r, s.plan_tokens[i], predicted_end_s):
            w.token_s[w.token_start[r] + t.emitted_tokens[r] - 1] = end_s
            _note_ending(w, f, t, r)
    s.totals.planned = 0
    for i in range(ended):
        leave(s, t, f.ending[i], w.output_tokens[f.ending[i]])
    w.progress.finished += ended
    f.numbers.ending -= ended
    for i in range(f.numbers.ending):
        f.ending[i] = f.ending[i + ended]


@compiled
def _note_ending(w, f, t, r):
    if t.emitted_tokens[r] == w.output_tokens[r]:
        f.ending[f.numbers.ending] = r
        f.numbers.ending += 1


@compiled
def _note_holders(f, s):
    """Note who holds KV before the plan that is made now."""
    f.numbers.plans += 1
    for i in range(s.totals.running):
        f.held_at[s.running[i]] = f.numbers.plans
    for i in range(s.totals.prefilling):
        f.held_at[s.prefilling[i]] = f.numbers.plans


@compiled
def _grant(w, f, k):
    """What the engine makes of the plan is put in flight.

    Those that have had their last token get no more, those left out none now, and those whose KV this very plan gave up
    wait for the next.
    """
    s, t = k.state, k.table
    decodes, context = s.totals.running, s.totals.running_context
    for i in range(s.totals.running):
        r = s.running[i]
        if t.emitted_tokens[r] == w.output_tokens[r] or t.left_out[r] > 0:
            decodes -= 1
            context -= t.computed_tokens[r]
    chunks = s.totals.planned
    for i in range(s.totals.planned):
        r = s.plan_ids[i]
        if t.kv_blocks[r] == 0 and f.held_at[r] == f.numbers.plans:
            s.plan_tokens[i] = 0
            chunks -= 1
    batch = engine_batch(s, t, decodes, context)
    f.numbers.decodes, f.numbers.decode_context = batch.decodes, batch.decode_context
    f.numbers.chunks, f.numbers.prefill_tokens = chunks, batch.prefill_tokens
    f.numbers.top_prefix, f.numbers.prefill_work = batch.top_prefix, batch.prefill_work
    f.numbers.scale = w.learning.learned.scale
    f.numbers.predicted_s = seconds(k.model, batch) if _tokens(batch) > 0 else 0.0
