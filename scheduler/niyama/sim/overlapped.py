"""One simulated replica of an engine that plans ahead, as vLLM's asynchronous scheduling does; compiled.

The next iteration is planned when the one before it begins, not when it ends. So the plan counts on the predicted end
of the iteration in flight, sees no arrival after its beginning, and still counts requests that end with it: the engine
knows that they have had all their tokens and leaves them out, and their KV comes free one plan later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from niyama.commit import commit_chunk, commit_decode, count_decodes, observe_step
from niyama.compiled import compiled
from niyama.latency.model import Batch, seconds
from niyama.plan import plan
from niyama.release import leave, secure_decode_blocks
from niyama.scheduler import FAULT, NO_FAULT, PLANNED, PREFILLING, QUEUED, RUNNING, RUNNING_CONTEXT
from niyama.sim.replica import (
    FINISHED,
    ITERATIONS,
    LOGGED,
    NEXT_ARRIVAL,
    admit,
    engine_batch,
    mark_scheduled,
    noise_factor,
    write_log,
)

# indices of Flight.count
DECODES, DECODE_CONTEXT, CHUNKS, PREFILL_TOKENS, TOP_PREFIX = 0, 1, 2, 3, 4  # its batch
ENDING = 5  # requests in `ending`
PLANS = 6  # made so far
# indices of Flight.gauge
PREFILL_WORK, PREDICTED_S = 0, 1


class Flight(NamedTuple):
    """The iteration that is planned and not committed yet; its chunks stand in the scheduler's plan. Mutable arrays."""

    count: np.ndarray  # int64[7]
    gauge: np.ndarray  # float64[2]: its batch, its predicted duration in seconds
    ending: np.ndarray  # int32[2 * (max_running + 1)]; requests that end with the iteration in flight
    held_at: np.ndarray  # int64[n]; the last plan before which the request held KV


def new_flight(requests: int, max_running: int) -> Flight:
    """Nothing in flight."""
    ending, held_at = np.zeros(2 * (max_running + 1), np.int32), np.full(requests, -1, np.int64)
    return Flight(np.zeros(7, np.int64), np.zeros(2), ending, held_at)


@compiled
def advance_overlapped(w, f, s, t, p, rules, predictor, executor, most_iterations):
    """`niyama.sim.replica.advance`, planning ahead: a round begins the iteration in flight and plans the next one."""
    n, rows = len(w.arrival_s), len(w.log)
    now_s = w.clock_s[0]
    stop = w.progress[ITERATIONS] + most_iterations
    while w.progress[FINISHED] < n and w.progress[ITERATIONS] < stop and not (0 < rows <= w.progress[LOGGED]):
        if s.count[FAULT] != NO_FAULT:
            break
        batch, predicted_s, duration_s = _in_flight(f), f.gauge[PREDICTED_S], 0.0
        if _tokens(batch) > 0:
            duration_s = seconds(executor, batch) * noise_factor(w.noise[0], w.noise[1], w.progress[ITERATIONS])
            if rows > 0:
                write_log(w, s, batch, now_s, duration_s, predicted_s, f.count[CHUNKS])
            mark_scheduled(w, s, now_s)
            w.progress[ITERATIONS] += 1
        predicted_end_s = now_s + predicted_s
        _commit(w, f, s, t, p, rules, predicted_end_s, now_s + duration_s)
        if s.count[QUEUED] + s.count[RUNNING] == 0 and w.progress[FINISHED] < n:
            now_s = max(now_s, w.arrival_s[w.progress[NEXT_ARRIVAL]])
        admit(w, s, t, p, rules, now_s)
        if predicted_s > 0.0:
            observe_step(s, batch.prefill_tokens, predicted_end_s - now_s)  # in a host's digits, which knows times
        _note_holders(f, s)
        secure_decode_blocks(s, t, p, rules)
        plan(s, t, p, rules, predictor, now_s + predicted_s)
        _grant(w, f, s, t, predictor)
        now_s += duration_s
        if _tokens(batch) == 0 and s.count[PLANNED] + s.count[RUNNING] == 0 and s.count[QUEUED] > 0:
            break
    w.clock_s[0] = now_s


@compiled
def _tokens(batch):
    return batch.decodes + batch.prefill_tokens


@compiled
def _in_flight(f):
    c = f.count
    return Batch(c[DECODES], c[DECODE_CONTEXT], c[PREFILL_TOKENS], f.gauge[PREFILL_WORK], c[TOP_PREFIX])


@compiled
def _commit(w, f, s, t, p, rules, predicted_end_s, end_s):
    """The iteration in flight counts as done, by its predicted end; those that ended with the one before leave."""
    ended, n, decodes, short = f.count[ENDING], s.count[RUNNING], 0, False
    for i in range(n):
        r = s.running[i]
        if t.emitted_tokens[r] < w.output_tokens[r]:
            w.token_s[w.token_start[r] + t.emitted_tokens[r]] = end_s
            short |= commit_decode(s, t, r, 1)
            decodes += 1
            _note_ending(w, f, t, r)
    if decodes > 0:
        count_decodes(s, decodes, short)
    for i in range(s.count[PLANNED]):
        r = s.plan_ids[i]
        if commit_chunk(s, t, p, rules, r, s.plan_tokens[i], predicted_end_s):
            w.token_s[w.token_start[r] + t.emitted_tokens[r] - 1] = end_s
            _note_ending(w, f, t, r)
    s.count[PLANNED] = 0
    for i in range(ended):
        leave(s, t, f.ending[i], w.output_tokens[f.ending[i]])
    w.progress[FINISHED] += ended
    f.count[ENDING] -= ended
    for i in range(f.count[ENDING]):
        f.ending[i] = f.ending[i + ended]


@compiled
def _note_ending(w, f, t, r):
    if t.emitted_tokens[r] == w.output_tokens[r]:
        f.ending[f.count[ENDING]] = r
        f.count[ENDING] += 1


@compiled
def _note_holders(f, s):
    """Note who holds KV before the plan that is made now."""
    f.count[PLANS] += 1
    for i in range(s.count[RUNNING]):
        f.held_at[s.running[i]] = f.count[PLANS]
    for i in range(s.count[PREFILLING]):
        f.held_at[s.prefilling[i]] = f.count[PLANS]


@compiled
def _grant(w, f, s, t, predictor):
    """What the engine makes of the plan is put in flight.

    Those that have had their last token get no more, and those whose KV this very plan gave up wait for the next.
    """
    decodes, context = s.count[RUNNING], s.count[RUNNING_CONTEXT]
    for i in range(s.count[RUNNING]):
        r = s.running[i]
        if t.emitted_tokens[r] == w.output_tokens[r]:
            decodes -= 1
            context -= t.computed_tokens[r]
    chunks = s.count[PLANNED]
    for i in range(s.count[PLANNED]):
        r = s.plan_ids[i]
        if t.kv_blocks[r] == 0 and f.held_at[r] == f.count[PLANS]:
            s.plan_tokens[i] = 0
            chunks -= 1
    batch = engine_batch(s, t, decodes, context)
    f.count[DECODES], f.count[DECODE_CONTEXT] = batch.decodes, batch.decode_context
    f.count[CHUNKS], f.count[PREFILL_TOKENS] = chunks, batch.prefill_tokens
    f.count[TOP_PREFIX], f.gauge[PREFILL_WORK] = batch.top_prefix, batch.prefill_work
    f.gauge[PREDICTED_S] = seconds(predictor, batch) if _tokens(batch) > 0 else 0.0
