"""One iteration's plan: all decodes, plus the prefill chunks chosen here (Alg. 1 of the paper and what it leaves open).

`plan` is the composition loop; what it decides is decided by the policy's three rules. It proposes: queues lose the
planned requests, relegated ones their KV; the rest changes when the engine reports what was granted (`niyama.commit`).
"""

from __future__ import annotations

import numpy as np

from niyama.faults import ask_budget, ask_doomed
from niyama.jit import compiled
from niyama.kernel import Moment
from niyama.kv import drop_prefill, kv_blocks_wanted, kv_tokens
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.queues import IMPORTANT, LOW, NONE, QUEUES, first_queue, has_head, pop, rebuild
from niyama.rules import Forecast, Limits, delayed
from niyama.state import NOBODY
from niyama.waiting import count_prefill, prefill_left, rekey, requeue

# Free KV is low below `kv_low_tokens`, but for no more than the last sixth of an engine's KV.
KV_LOW_PARTS = 6


@compiled
def plan(k, now_s):
    """Choose the prefill chunks of the iteration that starts at `now_s`; returns the whole Batch.

    Chunks are left in s.plan_ids and s.plan_tokens, the first s.totals.planned.
    """
    s, p = k.state, k.params
    slack_s = min_decode_slack(s, k.table, now_s)
    batch = empty_batch(s.totals.running, s.totals.running_context)
    s.totals.planned = 0
    if s.totals.queued > 0 and not s.totals.prefills_held:
        full_step_s = seconds(k.model, with_prefill(batch, 0, p.max_chunk_tokens))
        if p.alpha_low != p.alpha_high:
            adapt_alpha(k, full_step_s)
        m = Moment(now_s, slack_s, full_step_s, _limits(s, p))
        if p.protect_started:
            batch = _keep_started(k, m, batch)
        batch = _fill_by_rank(k, m, batch)
    s.totals.prefills_held, s.totals.refused = False, NOBODY
    s.totals.min_slack_s = slack_s
    s.totals.predicted_s = seconds(k.model, batch)
    return batch


@compiled
def min_decode_slack(s, t, now_s):
    """Least time to the next token's deadline over the decodes (section 3.3), in seconds; inf without one."""
    least = np.inf
    for i in range(s.totals.running):
        r = s.running[i]
        least = min(least, t.tokens_due_from_s[r] + t.emitted_tokens[r] * t.token_interval_s[r])
    return least - now_s


@compiled
def adapt_alpha(k, full_step_s):
    """Load-adaptive alpha with hysteresis: high above load_high_s of queued prefill work, low below load_low_s."""
    s, t, p = k.state, k.table, k.params
    queued_s = s.totals.queued_prefill_tokens * full_step_s / p.max_chunk_tokens
    if s.totals.alpha == p.alpha_low and queued_s > p.load_high_s:
        s.totals.alpha = p.alpha_high
    elif s.totals.alpha == p.alpha_high and queued_s < p.load_low_s:
        s.totals.alpha = p.alpha_low
    else:
        return
    for q in range(QUEUES):
        for i in range(s.queues.size[q]):
            r = s.queues.ids[q, i]
            if t.queue[r] == q:
                rekey(k, r)
        rebuild(s.queues, t, q)


@compiled
def forecast(k, m, r):
    """When request `r` could meet its deadline at the earliest, were it served from now on together with the decodes.

    While a batch request decodes, the prompts queued now are prefilled in the same steps, which become longer: by the
    prompts' own prefill time at most, and at most as long as with full chunks. A share of that is counted.
    """
    s, t, most, share = k.state, k.table, k.params.max_chunk_tokens, k.params.queued_prefill_share
    left, decodes, context = prefill_left(t, r), s.totals.running, s.totals.running_context
    if left <= most:
        prefill_s = seconds(k.model, with_prefill(empty_batch(decodes, context), t.computed_tokens[r], left))
    else:
        prefill_s = m.full_step_s * left / most
    earliest_s, deadline_s = m.now_s + prefill_s, t.deadline_s[r]
    if t.interactive[r]:
        deadline_s += t.emitted_tokens[r] * t.tbt_s[r]  # its next token, when it lost its KV midway
    else:
        tokens = max(0.0, t.decode_estimate[r] - t.emitted_tokens[r] - 1.0)
        if tokens > 0.0:
            step_s = seconds(k.model, empty_batch(decodes + 1, context + t.target_tokens[r]))
            queued_s = s.totals.queued_prefill_tokens * m.full_step_s / most
            earliest_s += tokens * step_s + share * min(queued_s, tokens * max(0.0, m.full_step_s - step_s))
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
    if t.kv_blocks[r] > 0:
        drop_prefill(s, t, r)
        rekey(k, r)
    requeue(s, t, r)


@compiled
def _relegate_if_needed(k, m, r):
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
def _return_if_feasible(k, m, r):
    """Un-relegation: a relegated request whose turn came in time after all is an ordinary one again."""
    s, t = k.state, k.table
    if k.params.un_relegate and not ask_doomed(k, forecast(k, m, r)):
        t.relegated[r] = False
        s.totals.un_relegations += 1
        count_prefill(s, t, r, prefill_left(t, r))


@compiled
def _limits(s, p):
    total, free = kv_tokens(s)
    low = min(p.kv_low_tokens, total // KV_LOW_PARTS)
    return Limits(p.max_chunk_tokens, p.min_chunk_tokens, p.margin, free, low, p.kv_low_chunk_tokens, p.step_s)


@compiled
def _budget(k, m, batch, r):
    """Prompt tokens of request `r` that the iteration has room for; of any request when it is negative."""
    s, t = k.state, k.table
    prefix = t.computed_tokens[r] if r >= 0 else 0
    room = s.totals.step_tokens - batch.decodes - batch.prefill_tokens
    tokens = min(room, ask_budget(k, batch, m.limits, prefix, m.slack_s))
    return tokens if r < 0 else min(tokens, s.totals.chunk_tokens, np.int64(prefill_left(t, r)))


@compiled
def _add(s, t, batch, r, tokens):
    s.plan_ids[s.totals.planned] = r
    s.plan_tokens[s.totals.planned] = tokens
    s.totals.planned += 1
    t.queue[r] = NONE
    return with_prefill(batch, t.computed_tokens[r], tokens)


@compiled
def _keep_started(k, m, batch):
    """Selective preemption, rule 2: a started prompt is not passed over when one iteration's delay dooms it."""
    s, t = k.state, k.table
    for i in range(s.totals.prefilling):
        r = s.prefilling[i]
        if t.relegated[r]:
            continue
        view = forecast(k, m, r)
        if not ask_doomed(k, view) and ask_doomed(k, delayed(view, m.full_step_s)):
            tokens = _budget(k, m, batch, r)
            if tokens > 0:
                batch = _add(s, t, batch, r, tokens)
    return batch


@compiled
def _fill_by_rank(k, m, batch):
    """Take requests in order until the budget is used up, or KV or slots for new ones run out."""
    s, t, p = k.state, k.table, k.params
    taken, slots_taken = 0, 0  # by new requests of this plan; a relegation on the way may free some of the rest
    while _budget(k, m, batch, -1) > 0:
        q = first_queue(s.queues, t)
        if not has_head(s.queues, t, q):
            return batch
        r = pop(s.queues, t, q)
        if t.relegated[r]:
            _return_if_feasible(k, m, r)
        elif p.relegates and s.totals.slots > 0 and _relegate_if_needed(k, m, r):
            continue
        new = t.kv_blocks[r] == 0
        blocks = kv_blocks_wanted(s, t, p, r) if new else 0
        tokens = _budget(k, m, batch, r)
        holders = s.totals.running + s.totals.prefilling + slots_taken  # at 0 nothing will come free
        short = (blocks > s.totals.kv_free_blocks - taken and holders > 0) or holders >= s.totals.slots
        no_room = new and (short or r == s.totals.refused)
        if tokens < 1 or no_room:
            requeue(s, t, r)
            return _fill_with_started(k, m, batch) if no_room else batch
        if new:
            taken += blocks
            slots_taken += 1
        batch = _add(s, t, batch, r, tokens)
    return batch


@compiled
def _fill_with_started(k, m, batch):
    """With no room for a new request, go on with prompts that hold their KV already, so that it comes free."""
    s, t = k.state, k.table
    for i in range(s.totals.prefilling):
        r = s.prefilling[i]
        tokens = _budget(k, m, batch, r)
        if tokens > 0 and t.queue[r] != NONE:
            batch = _add(s, t, batch, r, tokens)
    return batch
