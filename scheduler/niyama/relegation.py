"""Eager relegation (section 3.4): who will miss its deadline whatever is done, and where such requests wait."""

from __future__ import annotations

from niyama.faults import ask_doomed
from niyama.inputs import Forecast, delayed
from niyama.jit import compiled
from niyama.kv import drop_prefill
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.queues import IMPORTANT, LOW, has_head, pop
from niyama.waiting import count_prefill, prefill_left, rekey, requeue


@compiled
def forecast(k, m, r):
    """When request `r` could meet its deadline at the earliest, were it served from now on together with the decodes.

    While a batch request decodes, the prompts queued now are prefilled in the same steps, which become longer: by the
    prompts' own prefill time at most, and at most as long as with full chunks. A share of that is counted.
    """
    s, t, most, share = k.state, k.table, k.params.max_chunk_tokens, k.params.queued_prefill_share
    left, decodes, context = prefill_left(t, r), s.totals.running + s.totals.drafts, s.totals.running_context
    if left <= most:
        prefill_s = seconds(k.model, with_prefill(empty_batch(decodes, context), t.computed_tokens[r], left))
    else:
        prefill_s = m.full_step_s * left / most
    earliest_s, deadline_s = m.now_s + prefill_s, t.deadline_s[r]
    if t.interactive[r]:
        deadline_s += t.emitted_tokens[r] * t.tbt_s[r]  # its next token, when it lost its KV midway
    else:
        steps = max(0.0, t.decode_estimate[r] - t.emitted_tokens[r] - 1.0) / s.totals.pace
        if steps > 0.0:
            step_s = seconds(k.model, empty_batch(decodes + 1, context + t.target_tokens[r]))
            queued_s = s.totals.queued_prefill_tokens * m.full_step_s / most
            earliest_s += steps * step_s + share * min(queued_s, steps * max(0.0, m.full_step_s - step_s))
    return Forecast(m.now_s, earliest_s, deadline_s, left, t.computed_tokens[r] > 0, s.totals.prefill_rate)


@compiled
def stands_in_the_way(k, m, r):
    """Whether a feasible low-importance request must step aside because an important one would miss its deadline.

    The rule (the paper gives none): the first important request in line is feasible, but would miss if `r` and, when
    it is interactive, the other queued important interactive prompts were prefilled before it.
    """
    s, t = k.state, k.table
    if t.important[r] or not has_head(s.queues, t, IMPORTANT):
        return False
    first = s.queues.ids[IMPORTANT, 0]
    view = forecast(k, m, first)
    ahead = prefill_left(t, r)
    if t.interactive[first]:
        ahead += s.totals.important_interactive_tokens - view.prefill_left
    wait_s = ahead * m.full_step_s / k.params.max_chunk_tokens
    return not ask_doomed(k, view) and ask_doomed(k, delayed(view, wait_s))


@compiled
def relegate(k, r):
    """Move a request that is in no queue to its relegated queue.

    A started prompt loses its KV: it may wait for hours, and in lasting overload such prompts would fill the cache
    and shut out the others (seen: nine tenths of it after two and a half hours at 1.6 times capacity).
    """
    s, t = k.state, k.table
    count_prefill(s, t, r, -prefill_left(t, r))
    t.relegated[r] = True
    t.relegations[r] += 1
    s.totals.relegations += 1
    t.late[r] = k.params.late_share > 0.0 and t.interactive[r] and t.important[r]
    if t.kv_blocks[r] > 0:
        drop_prefill(s, t, r)
        rekey(k, r)
    requeue(s, t, r)


@compiled
def relegate_if_needed(k, m, r):
    """Relegate `r` if it is doomed or in the way of an important request; low importance goes first."""
    s, t, p = k.state, k.table, k.params
    if ask_doomed(k, forecast(k, m, r)):
        if p.make_room and t.important[r]:
            while has_head(s.queues, t, LOW):
                relegate(k, pop(s.queues, t, LOW))
    elif not (p.make_room and stands_in_the_way(k, m, r)):
        return False
    relegate(k, r)
    return True


@compiled
def return_if_feasible(k, m, r):
    """Un-relegation: a relegated request whose turn came in time after all is an ordinary one again."""
    s, t = k.state, k.table
    if k.params.un_relegate and not ask_doomed(k, forecast(k, m, r)):
        t.relegated[r] = t.late[r] = False
        s.totals.un_relegations += 1
        count_prefill(s, t, r, prefill_left(t, r))
