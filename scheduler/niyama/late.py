"""Late requests, important interactive ones that missed their first deadline: their share of the prefill.

The paper lets them wait for as long as any request can still be on time, which in lasting overload is for ever. Here
they are served in order of rank, each when `late_share` of all prefill since has come to its prompt. So none waits for
longer than (prompt tokens of those before it and its own) / (late_share * prefill tokens per second), and then for its
KV to come free: that is kept for it (`niyama.plan`), and once it has it, it keeps it (`niyama.kv`).
"""

from __future__ import annotations

from niyama.jit import compiled
from niyama.queues import LATE, has_head
from niyama.waiting import prefill_left


@compiled
def late_is_due(k):
    """Whether the first of the late requests goes on, or is to start, before those that can still be on time."""
    s, t = k.state, k.table
    if not has_head(s.queues, t, LATE):
        return False
    r = s.queues.ids[LATE, 0]
    return t.kv_blocks[r] > 0 or s.totals.late_tokens >= prefill_left(t, r)


@compiled
def share_with_late(k, prefill_tokens):
    """An iteration has so many prompt tokens: while somebody late waits, a share of that is put by."""
    s = k.state
    waits = has_head(s.queues, k.table, LATE)
    s.totals.late_tokens = s.totals.late_tokens + k.params.late_share * prefill_tokens if waits else 0.0
