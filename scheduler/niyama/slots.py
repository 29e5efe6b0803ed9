"""Slots, the requests that may hold KV at a time: when all are taken, an urgent request may get one of a batch request.

Nothing else frees a slot but the end of an output, which may take minutes (vLLM: `max_num_seqs`).
"""

from __future__ import annotations

from niyama.faults import ask_doomed
from niyama.inputs import delayed
from niyama.jit import compiled
from niyama.kv import preempt
from niyama.queues import LOW, first_queue
from niyama.relegation import forecast
from niyama.state import NOBODY

#: An urgent request waits for a slot until this share of its SLO is left to spare; a batch request that gives up its
#: slot must have that share of its time left to spare as well, when it has been prefilled again.
SPARE_SHARE = 0.5


@compiled
def take_slot(k, m):
    """Preempt a decode of a batch request for the first in line, if only that keeps its promise; whether it was done.

    The first in line is not started, and would be lost if it waited longer. The batch request is the one with most time
    to spare.
    """
    s, t = k.state, k.table
    if s.totals.slots == 0 or s.totals.running + s.totals.prefilling + s.totals.loading < s.totals.slots:
        return False
    q = first_queue(s.queues, t)
    if q > LOW:
        return False
    first = s.queues.ids[q, 0]
    if t.kv_blocks[first] > 0 or t.relegated[first]:
        return False
    view = forecast(k, m, first)
    wait_s = max(m.full_step_s, SPARE_SHARE * (t.deadline_s[first] - t.arrival_s[first]))
    if ask_doomed(k, view) or not ask_doomed(k, delayed(view, wait_s)):
        return False
    victim = _with_most_to_spare(k, m)
    if victim == NOBODY:
        return False
    preempt(k, victim, 0)
    return True


@compiled
def _with_most_to_spare(k, m):
    """The batch request among the decodes that can best wait to be prefilled again; NOBODY if none can."""
    s, t = k.state, k.table
    best, most_s = NOBODY, 0.0
    for i in range(s.totals.running):
        r = s.running[i]
        if t.interactive[r] or t.relegated[r]:
            continue
        left_s = t.deadline_s[r] - m.now_s
        needed_s = (t.computed_tokens[r] + 1) * m.full_step_s / k.params.max_chunk_tokens
        needed_s += max(1.0, t.decode_estimate[r] - t.emitted_tokens[r]) * s.totals.decode_s
        spare_s = left_s - needed_s
        if spare_s > max(most_s, SPARE_SHARE * left_s):
            best, most_s = r, spare_s
    return best
