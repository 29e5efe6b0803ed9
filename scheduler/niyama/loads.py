"""KV that a request gets from elsewhere: a store of prefixes, or another engine that has computed its prompt."""

from __future__ import annotations

from niyama.jit import compiled
from niyama.kv import hold, kv_tokens_wanted
from niyama.queues import NONE
from niyama.requests import LOADED, LOADING, LOADS, QUEUED
from niyama.waiting import count_prefill, rekey, requeue


@compiled
def lies_elsewhere(k, r, tokens, loads):
    """The first `tokens` tokens of waiting request `r`, which holds no KV, need not be computed.

    loads: they are loaded before its first chunk, and not within that iteration.
    """
    s, t = k.state, k.table
    if t.kv_blocks[r] > 0:
        return
    _has(s, t, r, min(tokens, t.target_tokens[r] - 1))
    t.state[r] = LOADS if loads and tokens > 0 else QUEUED
    if t.queue[r] != NONE:
        key = t.key[r]
        rekey(k, r)
        if t.key[r] != key:  # else it would stand in the queue twice
            requeue(s, t, r)


@compiled
def start_load(k, r, tokens):
    """`r`, which held no KV, has the KV of its whole prompt, and `tokens` tokens of that are on their way."""
    s, t = k.state, k.table
    hold(s, t, r, 0, kv_tokens_wanted(s, t, k.params, r), False)
    _has(s, t, r, tokens)
    s.totals.kv_held_tokens += t.computed_tokens[r]
    t.state[r], t.queue[r] = LOADING, NONE
    s.totals.loading += 1


@compiled
def end_load(k, r, tokens):
    """`tokens` tokens are there: from now on `r` is a started prompt."""
    s, t = k.state, k.table
    if t.state[r] != LOADING:
        return
    s.totals.kv_held_tokens += tokens - t.computed_tokens[r]
    _has(s, t, r, tokens)
    t.state[r] = LOADED
    s.totals.loading -= 1
    s.prefilling[s.totals.prefilling] = r
    s.totals.prefilling += 1
    rekey(k, r)
    requeue(s, t, r)


@compiled
def _has(s, t, r, tokens):
    if not t.relegated[r]:
        count_prefill(s, t, r, t.computed_tokens[r] - tokens)
    t.computed_tokens[r] = tokens
