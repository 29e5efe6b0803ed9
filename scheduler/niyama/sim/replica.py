"""One simulated replica: plan -> execute -> commit, iteration by iteration, compiled.

The true output lengths are known here, in the engine; the scheduler is told only that a request has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from niyama.commit import commit_chunk, commit_decode, count_decodes, finish, observe_duration, observe_step
from niyama.jit import Numbers, compiled
from niyama.kv import secure_decode_blocks
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.plan import plan
from niyama.sim.learning import Learning, learn_step
from niyama.sim.noise import noise_factor
from niyama.state import NO_FAULT
from niyama.waiting import enqueue


@dataclass(slots=True)
class Progress(Numbers):
    """How far a run is."""

    now_s: float = 0.0
    until_s: float = inf  # no iteration starts at this time or later
    sent: int = 0  # requests that the router has sent here
    next_arrival: int = 0  # the first of those that has not arrived, by its place in `order`
    finished: int = 0  # requests
    iterations: int = 0
    logged: int = 0  # rows of the log


class World(NamedTuple):
    """What the engine knows and records; n requests, sorted by arrival. Times in seconds.

    The requests may be all of a fleet's: a replica serves those that `order` has, of which `Progress.sent` are known.
    """

    order: np.ndarray  # int32; requests of this replica, in order of arrival
    arrival_s: np.ndarray  # float64[n]
    output_tokens: np.ndarray  # int32[n]; the truth
    token_start: np.ndarray  # int64[n]; output token k (0-based) of request r is token_s[token_start[r] + k]
    token_s: np.ndarray  # float64[sum of outputs]; end of the iteration that made each token
    first_scheduled_s: np.ndarray  # float64[n]; nan until scheduled
    progress: Any  # Progress, as a record
    log: np.ndarray  # float64[rows, LOG_COLUMNS]; no rows: no log
    noise: np.ndarray  # float64[4]: `niyama.sim.noise`
    started_first: bool  # the device runs prompts in KV before new ones
    learning: Learning


LOG_COLUMNS = (
    "start_s",
    "duration_s",
    "predicted_s",
    "decodes",
    "decode_context_tokens",
    "prefill_tokens",
    "prefill_requests",
    "queued",
    "kv_free_blocks",
    "min_slack_s",
)


@compiled
def advance(w, k, executor, most_iterations):
    """Run until all requests sent so far have finished, `until_s` is reached, the log is full or `most_iterations` more
    have passed.

    Also stops, before the iteration counts, where the policy plans nothing although requests wait and none decodes, and
    where one of its rules failed.
    """
    s, t, n = k.state, k.table, w.progress.sent
    now_s, until_s = w.progress.now_s, w.progress.until_s
    stop = w.progress.iterations + most_iterations
    rows = len(w.log)
    while w.progress.finished < n and w.progress.iterations < stop and not (0 < rows <= w.progress.logged):
        if s.totals.fault != NO_FAULT:
            break
        if s.totals.queued + s.totals.running == 0:
            now_s = max(now_s, next_arrival_s(w))
        if now_s >= until_s:
            break
        admit(w, k, now_s)
        secure_decode_blocks(k)
        if s.totals.queued == 0 and rows == 0 and not k.params.leaves_out:
            now_s = _decode_only_stretch(w, k, executor, now_s, stop)
            continue
        batch = plan(k, now_s)
        if batch.decodes + batch.prefill_tokens == 0:
            break
        if w.started_first:
            batch = engine_batch(s, t, batch.decodes, batch.decode_context)
        duration_s = seconds(executor, batch) * noise_factor(w.noise, w.progress.iterations)
        if rows > 0:
            write_log(w, s, batch, now_s, duration_s, s.totals.predicted_s, s.totals.planned)
        mark_scheduled(w, s, now_s)
        if k.params.leaves_out:
            observe_duration(s, now_s + duration_s - now_s)  # in the digits that an engine in Python reports
        now_s += duration_s
        _commit(w, k, batch, duration_s, now_s)
        if w.learning.learns:
            learn_step(w.learning, k, seconds(k.model, batch), w.learning.learned.scale, duration_s)
        w.progress.iterations += 1
    w.progress.now_s = now_s


@compiled
def engine_batch(s, t, decodes, decode_context):
    """The planned batch in the order of vLLM, which runs prompts in KV before new ones; chunks of 0 tokens left out."""
    batch = empty_batch(decodes, decode_context)
    for started in (True, False):
        for i in range(s.totals.planned):
            r = s.plan_ids[i]
            if s.plan_tokens[i] > 0 and (t.kv_blocks[r] > 0) == started:
                batch = with_prefill(batch, t.computed_tokens[r], s.plan_tokens[i])
    return batch


@compiled
def admit(w, k, now_s):
    """Requests that have arrived by `now_s` are queued."""
    while next_arrival_s(w) <= now_s:
        enqueue(k, w.order[w.progress.next_arrival])
        w.progress.next_arrival += 1


@compiled
def next_arrival_s(w):
    """When the next of the requests that were sent here arrives; inf where none is known."""
    if w.progress.next_arrival < w.progress.sent:
        return w.arrival_s[w.order[w.progress.next_arrival]]
    return np.inf


@compiled
def _commit(w, k, batch, duration_s, now_s):
    """Everything planned was granted: decodes first, then the chunks in plan order."""
    s, t = k.state, k.table
    ended = short = False
    n = decodes = s.totals.running
    for i in range(n):
        r = s.running[i]
        if k.params.leaves_out and t.left_out[r] > 0:
            decodes -= 1
            continue
        w.token_s[w.token_start[r] + t.emitted_tokens[r]] = now_s
        short |= commit_decode(s, t, r, 1)
        ended |= t.emitted_tokens[r] == w.output_tokens[r]
    count_decodes(s, decodes, short)
    for i in range(s.totals.planned):
        r = s.plan_ids[i]
        if commit_chunk(k, r, s.plan_tokens[i], now_s):
            w.token_s[w.token_start[r] + t.emitted_tokens[r] - 1] = now_s
            ended |= t.emitted_tokens[r] == w.output_tokens[r]
    observe_step(s, batch.prefill_tokens, duration_s)
    if ended:
        _end_finished(w, s, t)


@compiled
def _end_finished(w, s, t):
    i = 0
    while i < s.totals.running:
        r = s.running[i]
        if t.emitted_tokens[r] == w.output_tokens[r]:
            finish(s, t, r)  # the last of the list takes this place
            w.progress.finished += 1
        else:
            i += 1


def in_order_of_removal(running: np.ndarray, ended: list[int]) -> list[int]:
    """As `_end_finished` ends them: where one is taken out of the list, the last of it takes its place."""
    if len(ended) < 2:
        return ended
    left, order, i = running.tolist(), [], 0
    while i < len(left):
        if left[i] in ended:
            order.append(left[i])
            left[i] = left[-1]
            left.pop()
        else:
            i += 1
    return order


@compiled
def _decode_only_stretch(w, k, executor, now_s, stop):
    """Iterations with nothing queued, up to the next arrival or the next end: they need no plan.

    A shortcut with the same results as the long way (tested), as far as the KV for the tokens is secured already.
    """
    s, t = k.state, k.table
    n = s.totals.running
    most = stop - w.progress.iterations
    for i in range(n):
        r = s.running[i]
        room = t.kv_room_tokens[r] - t.computed_tokens[r]
        most = min(most, w.output_tokens[r] - t.emitted_tokens[r], room)
    steps, stop_s = 0, min(next_arrival_s(w), w.progress.until_s)
    while steps < most and now_s < stop_s:
        s.totals.now_s = now_s
        batch = empty_batch(n, s.totals.running_context + n * steps)
        duration_s = seconds(executor, batch) * noise_factor(w.noise, w.progress.iterations)
        now_s += duration_s
        if w.learning.learns:
            learn_step(w.learning, k, seconds(k.model, batch), w.learning.learned.scale, duration_s)
        for i in range(n):
            r = s.running[i]
            w.token_s[w.token_start[r] + t.emitted_tokens[r] + steps] = now_s
        w.progress.iterations += 1
        steps += 1
    short = False
    for i in range(n):
        short |= commit_decode(s, t, s.running[i], steps)
    count_decodes(s, n * steps, short)
    _end_finished(w, s, t)
    return now_s


@compiled
def mark_scheduled(w, s, now_s):
    """The planned chunks begin at `now_s`."""
    for i in range(s.totals.planned):
        if np.isnan(w.first_scheduled_s[s.plan_ids[i]]):
            w.first_scheduled_s[s.plan_ids[i]] = now_s


@compiled
def write_log(w, s, batch, now_s, duration_s, predicted_s, chunks):
    """One row of the iteration log."""
    row = w.log[w.progress.logged]
    row[0] = now_s
    row[1] = duration_s
    row[2] = predicted_s
    row[3] = batch.decodes
    row[4] = batch.decode_context
    row[5] = batch.prefill_tokens
    row[6] = chunks
    row[7] = s.totals.queued
    row[8] = s.totals.kv_free_blocks
    row[9] = s.totals.min_slack_s
    w.progress.logged += 1
