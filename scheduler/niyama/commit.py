"""What happened becomes state: requests arrive, chunks were granted, tokens came out. `niyama.release` has the rest."""

from __future__ import annotations

import numpy as np

from niyama.compiled import compiled
from niyama.estimators import ORACLE, estimate
from niyama.faults import ask_rank
from niyama.kv import hold, kv_tokens_wanted
from niyama.queues import push, queue_index
from niyama.requests import DECODING
from niyama.requests import QUEUED as IN_QUEUE
from niyama.rules import Job
from niyama.scheduler import (
    ALPHA,
    IMPORTANT_INTERACTIVE_TOKENS,
    KV_HELD_TOKENS,
    KV_SHORT,
    PREFILL_RATE,
    PREFILLING,
    QUEUED,
    QUEUED_PREFILL_TOKENS,
    RUNNING,
    RUNNING_CONTEXT,
)

ARTIFACT_BATCH_TOKEN_S = 0.4  # the artifact's synthetic deadline per output token of a batch request
PREFILL_RATE_WEIGHT = 0.995


@compiled
def prefill_left(t, r):
    """Prompt tokens still to compute before the next output token."""
    return t.target_tokens[r] - t.computed_tokens[r]


@compiled
def rekey(s, t, rules, r):
    """Compute the request's rank afresh."""
    left, decode_left = np.int64(prefill_left(t, r)), max(1.0, t.decode_estimate[r] - t.emitted_tokens[r])
    job = Job(t.arrival_s[r], t.deadline_s[r], np.int64(t.target_tokens[r]), left, decode_left, t.interactive[r])
    t.key[r] = ask_rank(s, rules, job, s.gauge[ALPHA])


@compiled
def requeue(s, t, r):
    """Put a request that is in no queue where its importance and relegation say, under the key it has."""
    push(s.queues, t, queue_index(t.important[r], t.relegated[r]), r)


@compiled
def enqueue(s, t, p, rules, r):
    """A request arrived, or lost its KV and must be prefilled again."""
    if p.estimator != ORACLE and t.emitted_tokens[r] == 0:
        t.decode_estimate[r] = estimate(s.history, t.app[r], p.estimator, p.estimator_value, p.estimator_prior)
    t.state[r] = IN_QUEUE
    s.count[QUEUED] += 1
    if not t.relegated[r]:
        count_prefill(s, t, r, prefill_left(t, r))
    rekey(s, t, rules, r)
    requeue(s, t, r)


@compiled
def count_prefill(s, t, r, tokens):
    """Keep the totals of queued, not relegated prefill work."""
    s.count[QUEUED_PREFILL_TOKENS] += tokens
    if t.important[r] and t.interactive[r]:
        s.count[IMPORTANT_INTERACTIVE_TOKENS] += tokens


@compiled
def commit_chunk(s, t, p, rules, r, tokens, now_s):
    """`tokens` prompt tokens of planned request `r` were computed by `now_s`; True when an output token came out."""
    if t.kv_blocks[r] == 0 and tokens > 0:
        hold(s, t, r, 0, kv_tokens_wanted(s, t, p, r), False)
        s.count[KV_HELD_TOKENS] += t.computed_tokens[r]  # none, unless its KV came from another replica
        s.prefilling[s.count[PREFILLING]] = r
        s.count[PREFILLING] += 1
    t.computed_tokens[r] += tokens
    s.count[KV_HELD_TOKENS] += tokens
    if not t.relegated[r]:
        count_prefill(s, t, r, -tokens)
    if prefill_left(t, r) > 0:
        rekey(s, t, rules, r)
        requeue(s, t, r)
        return False
    remove(s.prefilling, s.count, PREFILLING, r)
    t.state[r] = DECODING
    s.count[QUEUED] -= 1
    s.running[s.count[RUNNING]] = r
    s.count[RUNNING] += 1
    s.count[RUNNING_CONTEXT] += t.computed_tokens[r]
    if t.emitted_tokens[r] == 0:
        set_pace(t, p, r, now_s)
    t.emitted_tokens[r] += 1
    hold(s, t, r, np.int64(t.computed_tokens[r]) + 1, np.int64(t.kv_room_tokens[r]), True)
    if t.computed_tokens[r] >= t.kv_room_tokens[r]:
        s.count[KV_SHORT] = 1
    return True


@compiled
def set_pace(t, p, r, first_token_s):
    """Fix the deadlines of the tokens to come: token k + 1 is due at pace_s + k * pace_step_s.

    Eq 2 for interactive requests; a batch request spreads its estimated output over the time left. A late request has
    no deadline left to protect, and does not throttle the others. `artifact_deadlines`: from the later of first token
    and first deadline, one TBT looser; batch requests at 0.4 s per token.
    """
    deadline_s, step_s = t.deadline_s[r], t.tbt_s[r]
    if p.artifact_deadlines:
        if not t.interactive[r]:
            step_s = ARTIFACT_BATCH_TOKEN_S
            deadline_s -= step_s * t.decode_estimate[r]
        t.pace_s[r], t.pace_step_s[r] = max(first_token_s, deadline_s) + step_s, step_s
    elif t.relegated[r] or first_token_s > deadline_s:
        t.pace_s[r], t.pace_step_s[r] = np.inf, 0.0
    elif t.interactive[r]:
        t.pace_s[r], t.pace_step_s[r] = deadline_s, step_s
    else:
        t.pace_s[r] = first_token_s
        t.pace_step_s[r] = (deadline_s - first_token_s) / max(1.0, t.decode_estimate[r] - 1.0)


@compiled
def commit_decode(s, t, r, tokens):
    """Decoding request `r` got its next `tokens` tokens, one per iteration; True when its KV is used up.

    `count_decodes` must follow, once for all of them.
    """
    t.emitted_tokens[r] += tokens
    t.computed_tokens[r] += tokens
    return t.computed_tokens[r] >= t.kv_room_tokens[r]


@compiled
def count_decodes(s, tokens, short):
    """Keep the totals: the decodes got `tokens` tokens together; `short`: some lack the KV for their next one."""
    s.count[RUNNING_CONTEXT] += tokens
    s.count[KV_HELD_TOKENS] += tokens
    if short:
        s.count[KV_SHORT] = 1


@compiled
def observe_step(s, prefill_tokens, duration_s):
    """Keep the running prefill rate that the artifact's relegation test uses."""
    if prefill_tokens > 0:
        rate = prefill_tokens / duration_s
        s.gauge[PREFILL_RATE] = PREFILL_RATE_WEIGHT * s.gauge[PREFILL_RATE] + (1.0 - PREFILL_RATE_WEIGHT) * rate


@compiled
def remove(ids, count, which, r):
    """Take `r` out of an unordered list; a list that does not hold it stays as it is."""
    for i in range(count[which]):
        if ids[i] == r:
            count[which] -= 1
            ids[i] = ids[count[which]]
            return
