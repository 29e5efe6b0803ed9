"""Decodes that a step goes without: the policy's rule `due` is asked for each decode in each step.

A decode that is left out keeps its KV, gets no token and counts in no budget of the step. It is taken all the same when
it was left out of `MOST_LEFT_OUT` steps in a row, and when the step would otherwise have nothing to do: so everybody
ends. A policy whose rule is `always` is never asked.
"""

from __future__ import annotations

import numpy as np

from niyama.faults import ask_due
from niyama.inputs import Decode, Step
from niyama.jit import compiled
from niyama.latency.model import empty_batch, seconds, with_prefill

MOST_LEFT_OUT = 64  # steps in a row


@compiled
def choose_decodes(k, now_s):
    """Ask of each decode whether it is due in the step that starts at `now_s`, and mark those that are left out."""
    s, t = k.state, k.table
    step = _step(k, now_s)
    for i in range(s.totals.running):
        r = s.running[i]
        interval_s = _interval_s(t, r)
        t.credit[r] += step.tightest_interval_s / interval_s if interval_s < np.inf else 0.0
        slack_s = t.tokens_due_from_s[r] + t.emitted_tokens[r] * t.token_interval_s[r] - now_s
        emitted, left_out = np.int64(t.emitted_tokens[r]), np.int64(t.left_out[r])
        view = Decode(slack_s, interval_s, emitted, left_out, t.credit[r], t.interactive[r], t.important[r])
        if ask_due(k, view, step) or left_out >= MOST_LEFT_OUT:
            _take(t, r)
        else:
            t.left_out[r] += 1


@compiled
def _take(t, r):
    t.left_out[r] = 0
    t.credit[r] = max(0.0, t.credit[r] - 1.0)


@compiled
def _interval_s(t, r):
    """Between the deadlines of the tokens of `r`, also where they are all missed; inf for a batch request without."""
    interval_s = t.tbt_s[r] if t.interactive[r] else t.token_interval_s[r]
    return interval_s if interval_s > 0.0 else np.inf


@compiled
def _step(k, now_s):
    s, t = k.state, k.table
    batch = empty_batch(s.totals.running, s.totals.running_context)
    if s.totals.queued > 0 and not s.totals.prefills_held:
        batch = with_prefill(batch, 0, k.params.max_chunk_tokens)
    tightest_s = np.inf
    for i in range(s.totals.running):
        tightest_s = min(tightest_s, _interval_s(t, s.running[i]))
    kv_used = 1.0 - s.totals.kv_free_blocks / max(1, s.totals.kv_total_blocks)
    return Step(
        now_s, seconds(k.model, batch), s.totals.mean_step_s, kv_used, s.totals.running,
        s.totals.queued_prefill_tokens, tightest_s,
    )  # fmt: skip


@compiled
def planned_decodes(k):
    """The batch of the decodes that are not left out."""
    s, t = k.state, k.table
    if not k.params.leaves_out:
        return empty_batch(s.totals.running + s.totals.drafts, s.totals.running_context)
    decodes, context = s.totals.drafts, 0
    for i in range(s.totals.running):
        r = s.running[i]
        if t.left_out[r] == 0:
            decodes += 1
            context += t.computed_tokens[r]
    return empty_batch(decodes, context)


@compiled
def take_all(k):
    """Nothing else is planned: everybody who decodes gets the next token."""
    s, t = k.state, k.table
    for i in range(s.totals.running):
        if t.left_out[s.running[i]] > 0:
            _take(t, s.running[i])
    return planned_decodes(k)
