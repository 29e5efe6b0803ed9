"""One iteration's plan: the decodes, plus the prefill chunks chosen here (Alg. 1 of the paper and what it leaves open).

`plan` is the composition loop; what it decides is decided by the policy's four rules. It proposes: queues lose the
planned requests, relegated ones their KV; the rest changes when the engine reports what was granted (`niyama.commit`).
"""

from __future__ import annotations

import numpy as np

from niyama.due import choose_decodes, planned_decodes, take_all
from niyama.faults import ask_budget, ask_doomed
from niyama.inputs import delayed
from niyama.jit import compiled
from niyama.kernel import Moment
from niyama.kv import kv_blocks_wanted
from niyama.late import late_is_due, share_with_late
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.limits import decode_slack, limits_of
from niyama.queues import LATE, NONE, QUEUES, first_queue, has_head, pop, rebuild
from niyama.relegation import forecast, relegate_if_needed, return_if_feasible
from niyama.requests import LOADED, LOADS
from niyama.slots import take_slot
from niyama.state import NOBODY
from niyama.waiting import prefill_left, rekey, requeue

PACE_STEP = 0.2  # relative change of the time per output token at which waiting requests are ranked anew


@compiled
def plan(k, now_s):
    """Choose the prefill chunks of the iteration that starts at `now_s`; returns the whole Batch.

    Chunks are left in s.plan_ids and s.plan_tokens, the first s.totals.planned.
    """
    s, p = k.state, k.params
    s.totals.now_s = now_s
    if p.leaves_out:
        choose_decodes(k, now_s)
    slack_s, tbt_s, next_slack_s = decode_slack(s, k.table, p, now_s)
    batch = planned_decodes(k)
    s.totals.planned = 0
    if s.totals.queued > 0 and not s.totals.prefills_held:
        everybody = empty_batch(s.totals.running + s.totals.drafts, s.totals.running_context)
        full_step_s = seconds(k.model, with_prefill(everybody, 0, p.max_chunk_tokens))
        s.totals.full_step_s = full_step_s
        if p.rerank_s > 0.0 and now_s >= s.totals.ranked_s + p.rerank_s:
            s.totals.ranked_s = now_s
            rank_anew(k)
        if p.alpha_low != p.alpha_high:
            adapt_alpha(k, full_step_s)
        m = Moment(now_s, slack_s, full_step_s, limits_of(k, now_s, full_step_s, tbt_s, next_slack_s))
        if p.decode_share > 0.0:
            pace_decodes(k, full_step_s)
        if p.take_slots and take_slot(k, m):
            batch = planned_decodes(k)
        if p.protect_started:
            batch = _keep_started(k, m, batch)
        batch = _fill_by_rank(k, m, batch)
        if p.late_share > 0.0:
            share_with_late(k, batch.prefill_tokens)
    elif s.totals.prefills_held:
        batch = _fill_with_loaded(k, batch)
    if p.leaves_out and batch.decodes + batch.prefill_tokens == 0:
        batch = take_all(k)
    s.totals.prefills_held, s.totals.refused, s.totals.drafts = False, NOBODY, 0
    s.totals.min_slack_s = slack_s
    s.totals.predicted_s = seconds(k.model, batch)
    return batch


@compiled
def adapt_alpha(k, full_step_s):
    """Load-adaptive alpha with hysteresis: high above load_high_s of queued prefill work, low below load_low_s."""
    s, p = k.state, k.params
    queued_s = s.totals.queued_prefill_tokens * full_step_s / p.max_chunk_tokens
    if s.totals.alpha == p.alpha_low and queued_s > p.load_high_s:
        s.totals.alpha = p.alpha_high
    elif s.totals.alpha == p.alpha_high and queued_s < p.load_low_s:
        s.totals.alpha = p.alpha_low
    else:
        return
    rank_anew(k)


@compiled
def pace_decodes(k, full_step_s):
    """What each output token of a batch request is taken to need; it changes in steps, so that ranks are comparable."""
    s, p = k.state, k.params
    decode_s = p.decode_share * min(full_step_s, p.longest_tbts * s.totals.tightest_tbt_s) / s.totals.pace
    if abs(decode_s - s.totals.decode_s) > PACE_STEP * s.totals.decode_s:
        s.totals.decode_s = decode_s
        rank_anew(k)


@compiled
def rank_anew(k):
    """Compute the ranks of all waiting requests afresh, and order them by these."""
    s, t = k.state, k.table
    for q in range(QUEUES):
        for i in range(s.queues.size[q]):
            r = s.queues.ids[q, i]
            if t.queue[r] == q:
                rekey(k, r)
        rebuild(s.queues, t, q)


@compiled
def _budget(k, m, batch, r):
    """Prompt tokens of request `r` that the iteration has room for; of any request when it is negative."""
    s, t = k.state, k.table
    prefix = t.computed_tokens[r] if r >= 0 else 0
    room = s.totals.step_tokens - batch.decodes - batch.prefill_tokens
    tokens = min(room, ask_budget(k, batch, m.limits, prefix, m.slack_s))
    if r < 0:
        return tokens
    tokens = min(tokens, s.totals.chunk_tokens, np.int64(prefill_left(t, r)))
    return tokens if s.totals.align_tokens == 0 or tokens < 1 else _aligned(s, t, r, tokens)


@compiled
def _aligned(s, t, r, tokens):
    """The part of a chunk that ends at a block's boundary, or all of one that reaches none: what the engine grants."""
    size, start, target = s.totals.align_tokens, np.int64(t.computed_tokens[r]), np.int64(t.target_tokens[r])
    end, last = start + tokens, (target - 1) // size * size
    if start % size > 0:
        end = min(end, (start // size + 1) * size)
    if start < last:
        end = min(end, last)
    if end < target and end // size * size > start:
        end = end // size * size
    return end - start


@compiled
def _add(s, t, batch, r, tokens):
    s.plan_ids[s.totals.planned] = r
    s.plan_tokens[s.totals.planned] = tokens
    s.totals.planned += 1
    t.queue[r] = NONE
    return with_prefill(batch, t.computed_tokens[r], tokens) if tokens > 0 else batch


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
    late = p.late_share > 0.0
    while _budget(k, m, batch, -1) > 0:
        late = late and late_is_due(k)
        q = LATE if late else first_queue(s.queues, t)
        if not has_head(s.queues, t, q):
            return batch
        r = pop(s.queues, t, q)
        if t.relegated[r]:
            return_if_feasible(k, m, r)
        elif t.state[r] != LOADED and p.relegates and s.totals.slots > 0 and relegate_if_needed(k, m, r):
            continue  # what was loaded is kept: it would be computed here from the start
        new = t.kv_blocks[r] == 0
        blocks = kv_blocks_wanted(s, t, p, r) if new else 0
        loads = t.state[r] == LOADS  # before it computes anything
        tokens = 0 if loads else _budget(k, m, batch, r)
        holders = s.totals.running + s.totals.prefilling + s.totals.loading + slots_taken  # at 0 nothing comes free
        short = (blocks > s.totals.kv_free_blocks - taken and holders > 0) or holders >= s.totals.slots
        no_room = new and (short or r == s.totals.refused)
        if (tokens < 1 and not loads) or no_room:
            requeue(s, t, r)
            if late and no_room:
                late = False
                taken += blocks  # what comes free is kept for it, or smaller newcomers would take it for ever
                continue
            return _fill_with_started(k, m, batch) if no_room else batch
        if new:
            taken += blocks
            slots_taken += 1
        if late:
            s.totals.late_tokens -= tokens
        batch = _add(s, t, batch, r, tokens)
    return batch


@compiled
def _fill_with_loaded(k, batch):
    """Only decodes may run: so may a prompt of which all but the last token has come from elsewhere."""
    s, t = k.state, k.table
    for i in range(s.totals.prefilling):
        r = s.prefilling[i]
        room = s.totals.step_tokens - batch.decodes - batch.prefill_tokens
        if t.state[r] == LOADED and prefill_left(t, r) == 1 and room > 0:
            batch = _add(s, t, batch, r, 1)
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
