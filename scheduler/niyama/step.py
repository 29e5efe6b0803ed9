"""One step of an engine that is not compiled: take in what happened since the last one, then plan the next iteration.

An engine in Python (the vLLM plug-in, a replay) calls this once per iteration. All that it knows arrives as a list of
events, in the order in which they happened; the events of every step, written down, are a decision log.
"""

from __future__ import annotations

import numpy as np

from niyama.commit import commit_chunk, commit_decode, count_decodes, leave, observe_duration, observe_step
from niyama.jit import compiled
from niyama.kv import preempt, secure_decode_blocks
from niyama.loads import end_load, lies_elsewhere, start_load
from niyama.plan import plan
from niyama.requests import DECODING
from niyama.tenants import charge
from niyama.waiting import count_prefill, enqueue

# Kinds of event: (kind, request, value).
DECODED = 0  # got its next token, one that was on its way if it does not decode any more; value: unused
CHUNK = 1  # `value` tokens of a planned request were computed, 0 when the engine granted none
SIZED = 2  # it has `value` tokens to prefill in all, not what was said before (a prefix was cached, output was lost)
LOST = 3  # the engine dropped its KV, and `value` tokens that were reported and that nobody has seen
ENDED = 4  # finished with `value` output tokens
LEFT = 5  # aborted
ARRIVED = 6  # its row of the table is filled in
ALL_DECODED = 7  # every decoding request got its next token; request and value: unused
HELD = 8  # the next iteration has decodes only; request and value: unused
CAPPED = 9  # from now on no request gets more than `value` prompt tokens in an iteration; request: unused
NO_ROOM = 10  # no room for a request without KV: neither it nor one behind it starts in the next iteration
SLOTTED = 11  # from now on at most `value` requests hold KV; at 0 (a pause) those that do keep it; request: unused
DRAFTED = 12  # the next iteration verifies `value` drafted tokens beside the decodes' next ones; request: unused
PACED = 13  # from now on a decode gets `value` / 1000 tokens in an iteration, on average; request: unused
STORED = 14  # `value` tokens of a request without KV need not be computed: its first chunk comes behind them
LOADABLE = 15  # the same, and they are loaded before its first chunk: it starts by an iteration without tokens of its
LOADING = 16  # it holds KV, `value` tokens of which are being loaded; it is not planned before they are there
LOADED = 17  # `value` tokens are there, some of which may be missing of those that were to be loaded
TAKEN = 18  # from now on `value` blocks of KV are held by no request of the table; request: unused
KINDS = ("decoded", "chunk", "sized", "lost", "ended", "left", "arrived", "all decoded", "held", "capped")
KINDS += ("no room", "slotted", "drafted", "paced", "stored", "loadable", "loading", "loaded", "taken")

OF_NO_REQUEST = (ALL_DECODED, HELD, CAPPED, SLOTTED, DRAFTED, PACED, TAKEN)


@compiled
def step(k, events, n, prefill_tokens, began_s, ended_s, now_s):
    """Take in the first `n` rows of `events` (int32[:, 3]: kind, request, value); plan the iteration from `now_s` on.

    began_s, ended_s: the iteration whose tokens the events report, as far as the engine knows; prefill_tokens: how many
    prompt tokens it computed. Returns the planned Batch; chunks are in s.plan_ids, s.plan_tokens, s.totals.planned.
    """
    s, t = k.state, k.table
    decoded, short = 0, False
    for i in range(n):
        kind, r, value = events[i, 0], events[i, 1], events[i, 2]
        if kind == DECODED and t.state[r] == DECODING:
            short |= commit_decode(s, t, r, 1)
            decoded += 1
            continue
        if decoded > 0:
            count_decodes(s, decoded, short)
            decoded, short = 0, False
        if kind == ALL_DECODED:
            for place in range(s.totals.running):
                short |= commit_decode(s, t, s.running[place], 1)
            decoded = s.totals.running
        else:
            _take_in(k, kind, r, value, ended_s)
    if decoded > 0:
        count_decodes(s, decoded, short)
    if ended_s > began_s:
        observe_step(s, prefill_tokens, ended_s - began_s)
        if k.params.leaves_out:
            observe_duration(s, ended_s - began_s)
    secure_decode_blocks(k)
    return plan(k, now_s)


@compiled
def _take_in(k, kind, r, value, ended_s):
    s, t = k.state, k.table
    if kind == CHUNK:
        commit_chunk(k, r, value, ended_s)
    elif kind == SIZED:
        _resize(s, t, r, value)
    elif kind == LOST:
        preempt(k, r, value)
    elif kind == ARRIVED:
        enqueue(k, r)
    elif kind == HELD:
        s.totals.prefills_held = True
    elif kind == CAPPED:
        s.totals.chunk_tokens = value
    elif kind == NO_ROOM:
        s.totals.refused = r
    elif kind == SLOTTED:
        s.totals.slots = min(value, k.params.max_running)
    elif kind == DRAFTED:
        s.totals.drafts = value
    elif kind == PACED:
        s.totals.pace = max(1.0, value / 1000.0)
    elif kind == STORED or kind == LOADABLE:
        lies_elsewhere(k, r, value, kind == LOADABLE)
    elif kind == LOADING:
        start_load(k, r, value)
    elif kind == LOADED:
        end_load(k, r, value)
    elif kind == TAKEN:
        s.totals.kv_free_blocks += s.totals.kv_taken_blocks - value
        s.totals.kv_taken_blocks = value
    elif kind == DECODED:
        _resize(s, t, r, t.target_tokens[r] + 1)
        t.emitted_tokens[r] += 1
        charge(s, t, r, 0, 1)
    else:
        leave(s, t, r, value)


@compiled
def _resize(s, t, r, tokens):
    if not t.relegated[r]:
        count_prefill(s, t, r, np.int64(tokens) - t.target_tokens[r])
    t.target_tokens[r] = tokens
