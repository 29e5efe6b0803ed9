"""Requests that wait for prefill: they enter a queue, get a rank, and are counted."""

from __future__ import annotations

import numpy as np

from niyama.estimators import ORACLE, estimate
from niyama.faults import ask_rank
from niyama.inputs import LOW_WEIGHT, Job
from niyama.jit import compiled
from niyama.queues import LATE, NONE, push, queue_index
from niyama.requests import LOADING, QUEUED
from niyama.tenants import served_to, tenant_waits, tenant_waits_no_more

RECENT = 256  # interactive requests


@compiled
def prefill_left(t, r):
    """Prompt tokens still to compute before the next output token."""
    return t.target_tokens[r] - t.computed_tokens[r]


@compiled
def rekey(k, r):
    """Compute the request's rank afresh."""
    s, t = k.state, k.table
    left, decode_left = np.int64(prefill_left(t, r)), max(1.0, t.decode_estimate[r] - t.emitted_tokens[r])
    now_s, weight = max(s.totals.now_s, t.arrival_s[r]), 1.0 if t.important[r] else LOW_WEIGHT
    job = Job(
        t.arrival_s[r], t.deadline_s[r], np.int64(t.target_tokens[r]), left, decode_left, t.interactive[r],
        s.totals.decode_s, now_s, s.totals.full_step_s, s.totals.queued_prefill_tokens, weight,
        np.int64(t.tenant[r]), *served_to(s, t, r),
    )  # fmt: skip
    t.key[r] = ask_rank(k, job)


@compiled
def line_of(t, r):
    """The queue for a request."""
    return LATE if t.late[r] else queue_index(t.important[r], t.relegated[r])


@compiled
def kv_line_of(t, r):
    """In which line a holder of KV stands when some must give it up, the highest first.

    A late request keeps what it was prefilled out of turn for, as one that is on time does.
    """
    return queue_index(t.important[r], t.relegated[r] and not t.late[r])


@compiled
def requeue(s, t, r):
    """Put a request that is in no queue where its importance and relegation say, under the key it has."""
    push(s.queues, t, line_of(t, r), r)


@compiled
def enqueue(k, r):
    """A request arrived, or lost its KV and must be prefilled again."""
    s, t, p = k.state, k.table, k.params
    if p.estimator != ORACLE and t.emitted_tokens[r] == 0:
        t.decode_estimate[r] = estimate(s.history, t.app[r], p.estimator, p.estimator_value, p.estimator_prior)
    if t.interactive[r]:
        _note_tbt(s, t.tbt_s[r])
    t.state[r] = QUEUED
    s.totals.queued += 1
    tenant_waits(s, t, r)
    if not t.relegated[r]:
        count_prefill(s, t, r, prefill_left(t, r))
    rekey(k, r)
    requeue(s, t, r)


@compiled
def _note_tbt(s, tbt_s):
    """Keep the tightest TBT of recent interactive requests: a single one must not count for ever."""
    s.totals.tightest_tbt_s = min(s.totals.tightest_tbt_s, tbt_s)
    s.totals.newest_tbt_s = min(s.totals.newest_tbt_s, tbt_s)
    s.totals.newest_interactive += 1
    if s.totals.newest_interactive == RECENT:
        s.totals.tightest_tbt_s, s.totals.newest_tbt_s = s.totals.newest_tbt_s, np.inf
        s.totals.newest_interactive = 0


@compiled
def count_prefill(s, t, r, tokens):
    """Keep the totals of queued, not relegated prefill work."""
    s.totals.queued_prefill_tokens += tokens
    rate = tokens / (t.deadline_s[r] - t.arrival_s[r])
    if t.interactive[r]:
        s.totals.interactive_tokens += tokens
        s.totals.interactive_rate += rate
    else:
        s.totals.batch_rate += rate
    if s.totals.queued_prefill_tokens == 0:  # nothing is queued, and sums of fractions do not quite return to 0
        s.totals.interactive_rate = s.totals.batch_rate = 0.0
    if t.important[r] and t.interactive[r]:
        s.totals.important_interactive_tokens += tokens


@compiled
def unqueue(s, t, r):
    """Take a waiting request out of the queue and the totals."""
    s.totals.queued -= 1
    tenant_waits_no_more(s, t, r)
    if t.state[r] == LOADING:
        s.totals.loading -= 1
    if not t.relegated[r]:
        count_prefill(s, t, r, -prefill_left(t, r))
    t.queue[r] = NONE
