"""What happened becomes state: chunks were granted, tokens came out, requests ended or left."""

from __future__ import annotations

import numpy as np

from niyama.estimators import learn
from niyama.jit import compiled
from niyama.kv import free, hold, kv_tokens_wanted
from niyama.requests import DECODING, FINISHED, QUEUED
from niyama.state import remove, stop_decoding
from niyama.tenants import charge, tenant_waits_no_more
from niyama.waiting import count_prefill, prefill_left, rekey, requeue, unqueue

ARTIFACT_BATCH_TOKEN_S = 0.4  # the artifact's synthetic deadline per output token of a batch request
PREFILL_RATE_WEIGHT = 0.995
MEAN_STEP_WEIGHT = 0.99


@compiled
def commit_chunk(k, r, tokens, now_s):
    """`tokens` prompt tokens of planned request `r` were computed by `now_s`; True when an output token came out."""
    s, t, p = k.state, k.table, k.params
    if t.kv_blocks[r] == 0 and tokens > 0:
        hold(s, t, r, 0, kv_tokens_wanted(s, t, p, r), False)
        s.totals.kv_held_tokens += t.computed_tokens[r]  # none, unless its KV came from another replica
        s.prefilling[s.totals.prefilling] = r
        s.totals.prefilling += 1
    if tokens > 0:
        t.state[r] = QUEUED
    t.computed_tokens[r] += tokens
    charge(s, t, r, tokens, 0)
    s.totals.kv_held_tokens += tokens
    if not t.relegated[r]:
        count_prefill(s, t, r, -tokens)
    if prefill_left(t, r) > 0:
        rekey(k, r)
        requeue(s, t, r)
        return False
    s.totals.prefilling = remove(s.prefilling, s.totals.prefilling, r)
    t.state[r] = DECODING
    s.totals.queued -= 1
    tenant_waits_no_more(s, t, r)
    charge(s, t, r, 0, 1)
    s.running[s.totals.running] = r
    s.totals.running += 1
    s.totals.running_context += t.computed_tokens[r]
    if t.emitted_tokens[r] == 0:
        set_token_deadlines(t, p, r, now_s)
    t.emitted_tokens[r] += 1
    t.left_out[r], t.credit[r] = 0, 0.0
    hold(s, t, r, np.int64(t.computed_tokens[r]) + 1, np.int64(t.kv_room_tokens[r]), True)
    if t.computed_tokens[r] >= t.kv_room_tokens[r]:
        s.totals.kv_short = True
    return True


@compiled
def set_token_deadlines(t, p, r, first_token_s):
    """Fix the deadlines of the tokens to come: token k + 1 is due at tokens_due_from_s + k * token_interval_s.

    Eq 2 for interactive requests; a batch request spreads its estimated output over the time left. A late request has
    no deadline left to protect, and does not throttle the others. `artifact_deadlines`: from the later of first token
    and first deadline, one TBT looser; batch requests at 0.4 s per token.
    """
    deadline_s, step_s = t.deadline_s[r], t.tbt_s[r]
    if p.artifact_deadlines:
        if not t.interactive[r]:
            step_s = ARTIFACT_BATCH_TOKEN_S
            deadline_s -= step_s * t.decode_estimate[r]
        t.tokens_due_from_s[r], t.token_interval_s[r] = max(first_token_s, deadline_s) + step_s, step_s
    elif t.relegated[r] or first_token_s > deadline_s:
        t.tokens_due_from_s[r], t.token_interval_s[r] = np.inf, 0.0
    elif t.interactive[r]:
        t.tokens_due_from_s[r], t.token_interval_s[r] = deadline_s, step_s
    else:
        t.tokens_due_from_s[r] = first_token_s
        t.token_interval_s[r] = (deadline_s - first_token_s) / max(1.0, t.decode_estimate[r] - 1.0)


@compiled
def commit_decode(s, t, r, tokens):
    """Decoding request `r` got its next `tokens` tokens, one per iteration; True when its KV is used up.

    `count_decodes` must follow, once for all of them.
    """
    t.emitted_tokens[r] += tokens
    t.computed_tokens[r] += tokens
    charge(s, t, r, 0, tokens)
    return t.computed_tokens[r] >= t.kv_room_tokens[r]


@compiled
def count_decodes(s, tokens, short):
    """Keep the totals: the decodes got `tokens` tokens together; `short`: some lack the KV for their next one."""
    s.totals.running_context += tokens
    s.totals.kv_held_tokens += tokens
    if short:
        s.totals.kv_short = True


@compiled
def observe_step(s, prefill_tokens, duration_s):
    """Keep the running prefill rate that the artifact's relegation test uses."""
    if prefill_tokens > 0:
        rate = prefill_tokens / duration_s
        s.totals.prefill_rate = PREFILL_RATE_WEIGHT * s.totals.prefill_rate + (1.0 - PREFILL_RATE_WEIGHT) * rate


@compiled
def observe_duration(s, duration_s):
    """Keep the running mean of what iterations take."""
    mean_s = s.totals.mean_step_s
    weight = MEAN_STEP_WEIGHT if mean_s > 0.0 else 0.0
    s.totals.mean_step_s = weight * mean_s + (1.0 - weight) * duration_s


@compiled
def finish(s, t, r):
    """The engine says decoding request `r` has ended: free its KV and learn its output length."""
    learn(s.history, t.app[r], t.emitted_tokens[r])
    stop_decoding(s, t, r)
    free(s, t, r)
    t.state[r] = FINISHED


@compiled
def leave(s, t, r, output_tokens):
    """A request is gone, whatever it was doing; an output of `output_tokens` is learned from, 0 (aborted) is not."""
    if output_tokens > 0:
        learn(s.history, t.app[r], output_tokens)
    if t.state[r] == DECODING:
        stop_decoding(s, t, r)
    else:
        unqueue(s, t, r)
        s.totals.prefilling = remove(s.prefilling, s.totals.prefilling, r)
    free(s, t, r)
    t.state[r] = FINISHED
