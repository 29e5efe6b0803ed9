"""What a plan starts from: how much time the decodes have in hand, and what its prefill is limited by."""

from __future__ import annotations

import numpy as np

from niyama.inputs import Limits
from niyama.jit import compiled
from niyama.kv import kv_tokens
from niyama.queues import LOW, first_queue, has_head

# Free KV is low below `kv_low_tokens`, but for no more than the last sixth of an engine's KV.
KV_LOW_PARTS = 6


@compiled
def decode_slack(s, t, p, now_s):
    """Least time to the next token's deadline over the decodes (section 3.3), in seconds; inf without one.

    Of interactive requests the policy's reserve is not counted. Second: the least TBT of those, inf without one. Third:
    the least time to the deadline of the token after the next. Decodes that are left out of the step do not count.
    """
    least, tbt_s, after_next = np.inf, np.inf, np.inf
    looks_closer = p.reserve_tokens > 0.0 or p.reads_demand
    for i in range(s.totals.running):
        r = s.running[i]
        if p.leaves_out and t.left_out[r] > 0:
            continue
        due_s, interval_s = t.tokens_due_from_s[r], t.token_interval_s[r]
        due_s += t.emitted_tokens[r] * interval_s
        if looks_closer and t.interactive[r] and due_s < np.inf:
            due_s -= p.reserve_tokens * interval_s
            tbt_s = min(tbt_s, interval_s)
        least = min(least, due_s)
        if p.reads_demand:
            after_next = min(after_next, due_s + interval_s)
    return least - now_s, tbt_s, after_next - now_s


@compiled
def limits_of(k, now_s, full_step_s, tbt_s, next_slack_s):
    """What `prefill_budget` may look at; tbt_s, next_slack_s: of `decode_slack`."""
    s, p = k.state, k.params
    total, free = kv_tokens(s)
    low = min(p.kv_low_tokens, total // KV_LOW_PARTS)
    interactive = batch = 0.0
    if p.reads_demand:
        interactive, batch = _demand(s, k.table, now_s, full_step_s / p.max_chunk_tokens)
    return Limits(
        p.max_chunk_tokens, p.min_chunk_tokens, p.margin, free, low, p.kv_low_chunk_tokens, p.step_s, total,
        tbt_s, s.totals.step_spread, interactive, batch, p.steady_tbts, p.longest_tbts, p.urgent_tbts,
        p.long_step_kv_free, s.totals.queued, s.totals.prefilling, s.totals.queued_prefill_tokens, s.totals.running,
        next_slack_s,
    )  # fmt: skip


@compiled
def _demand(s, t, now_s, token_s):
    """Shares of all time that the queued prompts need at `token_s` seconds a token: of interactive requests, of batch.

    Each prompt over its SLO; the interactive ones together also over what the first in line has left of its own.
    """
    interactive = s.totals.interactive_rate * token_s
    q = first_queue(s.queues, t)
    if q <= LOW and has_head(s.queues, t, q):
        first = s.queues.ids[q, 0]
        left_s = t.deadline_s[first] - now_s
        if not t.relegated[first] and s.totals.interactive_tokens > 0:
            interactive = max(interactive, s.totals.interactive_tokens * token_s / left_s if left_s > 0.0 else np.inf)
    return interactive, s.totals.batch_rate * token_s
