"""KV comes free: requests end or leave, and lose what they hold when it runs short."""

from __future__ import annotations

import numpy as np

from niyama.commit import count_prefill, enqueue, prefill_left, remove
from niyama.compiled import compiled
from niyama.estimators import learn
from niyama.kv import blocks_to_grow, hold
from niyama.queues import NONE, queue_index
from niyama.requests import DECODING, FINISHED
from niyama.scheduler import (
    KV_FREE_BLOCKS,
    KV_HELD_TOKENS,
    KV_SHORT,
    PREEMPTIONS,
    PREFILLING,
    QUEUED,
    RUNNING,
    RUNNING_CONTEXT,
    SLOTS,
)


@compiled
def finish(s, t, r):
    """The host says decoding request `r` has ended: free its KV and learn its output length."""
    learn(s.history, t.app[r], t.emitted_tokens[r])
    _stop_decoding(s, t, r)
    _free(s, t, r)
    t.state[r] = FINISHED


@compiled
def leave(s, t, r, output_tokens):
    """A request is gone, whatever it was doing; an output of `output_tokens` is learned from, 0 (aborted) is not."""
    if output_tokens > 0:
        learn(s.history, t.app[r], output_tokens)
    if t.state[r] == DECODING:
        _stop_decoding(s, t, r)
    else:
        _unqueue(s, t, r)
        remove(s.prefilling, s.count, PREFILLING, r)
    _free(s, t, r)
    t.state[r] = FINISHED


@compiled
def secure_decode_blocks(s, t, p, rules):
    """Give every decode the KV for its next token, dropping the KV of the lowest-ranked holders if need be."""
    i = 0 if s.count[KV_SHORT] == 1 else s.count[RUNNING]
    s.count[KV_SHORT] = 0
    while i < s.count[RUNNING]:
        r = s.running[i]
        alone = s.count[RUNNING] + s.count[PREFILLING] == 1  # it would be prefilled again for the very same KV
        if t.computed_tokens[r] < t.kv_room_tokens[r]:
            i += 1
        elif blocks_to_grow(s, t, r) <= s.count[KV_FREE_BLOCKS] or alone or s.count[SLOTS] == 0:
            tokens = np.int64(t.computed_tokens[r]) + 1
            hold(s, t, r, tokens, tokens, True)
        else:
            preempt(s, t, p, rules, _victim(s, t), 0)
            i = 0  # the list has changed; those already served are passed at once


@compiled
def _victim(s, t):
    """The KV holder to give up: relegated before not, low importance before important, then the highest key."""
    worst = s.running[0]
    for i in range(s.count[RUNNING] + s.count[PREFILLING]):
        r = s.running[i] if i < s.count[RUNNING] else s.prefilling[i - s.count[RUNNING]]
        a, b = queue_index(t.important[r], t.relegated[r]), queue_index(t.important[worst], t.relegated[worst])
        if a > b or (a == b and (t.key[r] > t.key[worst] or (t.key[r] == t.key[worst] and r > worst))):
            worst = r
    return worst


@compiled
def preempt(s, t, p, rules, r, unseen_tokens):
    """Drop the request's KV; it is prefilled again, with the output it had (recompute).

    unseen_tokens: of its output, those that the host drops before anybody has seen them; they come out again.
    """
    if t.state[r] == DECODING:
        _stop_decoding(s, t, r)
        t.target_tokens[r] = t.computed_tokens[r] + 1 - unseen_tokens
        t.emitted_tokens[r] -= unseen_tokens
    else:
        _unqueue(s, t, r)
    drop_prefill(s, t, r)
    enqueue(s, t, p, rules, r)


@compiled
def drop_prefill(s, t, r):
    """Drop the KV of a request that does not decode, or no longer."""
    t.preemptions[r] += 1
    s.count[PREEMPTIONS] += 1
    remove(s.prefilling, s.count, PREFILLING, r)
    _free(s, t, r)


@compiled
def _stop_decoding(s, t, r):
    remove(s.running, s.count, RUNNING, r)
    s.count[RUNNING_CONTEXT] -= t.computed_tokens[r]


@compiled
def _unqueue(s, t, r):
    """Take a waiting request out of the queue and the totals."""
    s.count[QUEUED] -= 1
    if not t.relegated[r]:
        count_prefill(s, t, r, -prefill_left(t, r))
    t.queue[r] = NONE


@compiled
def _free(s, t, r):
    """Give back all KV of `r`."""
    s.count[KV_FREE_BLOCKS] += t.kv_blocks[r]
    s.count[KV_HELD_TOKENS] -= t.computed_tokens[r]
    t.kv_blocks[r] = t.kv_room_tokens[r] = 0
    t.computed_tokens[r] = 0
