"""One iteration's plan: all decodes, plus the prefill chunks chosen here (Alg. 1 of the paper and what it leaves open).

`plan` is the composition loop; what it decides is decided by the policy's three rules. It proposes: queues lose the
planned requests, relegated ones their KV; the rest changes when the host reports what was granted (`niyama.commit`).
"""

from __future__ import annotations

import numpy as np

from niyama.commit import count_prefill, prefill_left, rekey, requeue
from niyama.compiled import compiled
from niyama.faults import ask_budget, ask_doomed
from niyama.kv import kv_blocks_wanted, kv_tokens
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.queues import IMPORTANT, LOW, NONE, QUEUES, first_queue, pop, rebuild, waiting
from niyama.release import drop_prefill
from niyama.rules import Limits, Outlook, delayed
from niyama.scheduler import (
    ALPHA,
    CHUNK_TOKENS,
    IMPORTANT_INTERACTIVE_TOKENS,
    KV_FREE_BLOCKS,
    MIN_SLACK_S,
    NOBODY,
    PLANNED,
    PREDICTED_S,
    PREFILL_RATE,
    PREFILLING,
    PREFILLS_HELD,
    QUEUED,
    QUEUED_PREFILL_TOKENS,
    REFUSED,
    RELEGATIONS,
    RUNNING,
    RUNNING_CONTEXT,
    SLOTS,
    STEP_TOKENS,
    UN_RELEGATIONS,
)

# Midway between a batch request decoding alone (0: relegated so late that its pace throttles all; azure-conv-2023 at
# 6 QPS: three times the violations, a drain of 1,580 s instead of 1,090 s) and beside full chunks throughout (1:
# relegates what would make it; sharegpt-8k at 2.1 QPS: nearly twice the batch violations).
BESIDE = 0.5
# Free KV is low below `kv_low_tokens`, but for no more than the last sixth of an engine's KV.
KV_LOW_PARTS = 6


@compiled
def plan(s, t, p, rules, model, now_s):
    """Choose the prefill chunks of the iteration that starts at `now_s`; returns the whole Batch.

    Chunks are left in s.plan_ids and s.plan_tokens, the first s.count[PLANNED]. `model` is the predictor.
    """
    slack_s = min_decode_slack(s, t, now_s)
    batch = empty_batch(s.count[RUNNING], s.count[RUNNING_CONTEXT])
    s.count[PLANNED] = 0
    if s.count[QUEUED] > 0 and s.count[PREFILLS_HELD] == 0:
        full_step_s = seconds(model, with_prefill(batch, 0, p.max_chunk_tokens))
        if p.alpha_low != p.alpha_high:
            adapt_alpha(s, t, p, rules, full_step_s)
        limits = _limits(s, p)
        if p.protect_started:
            batch = _keep_started(s, t, p, rules, model, batch, limits, slack_s, now_s, full_step_s)
        batch = _fill_by_rank(s, t, p, rules, model, batch, limits, slack_s, now_s, full_step_s)
    s.count[PREFILLS_HELD], s.count[REFUSED] = 0, NOBODY
    s.gauge[MIN_SLACK_S] = slack_s
    s.gauge[PREDICTED_S] = seconds(model, batch)
    return batch


@compiled
def min_decode_slack(s, t, now_s):
    """Least time to the next token's deadline over the decodes (section 3.3), in seconds; inf without one."""
    least = np.inf
    for i in range(s.count[RUNNING]):
        r = s.running[i]
        least = min(least, t.pace_s[r] + t.emitted_tokens[r] * t.pace_step_s[r])
    return least - now_s


@compiled
def adapt_alpha(s, t, p, rules, full_step_s):
    """Load-adaptive alpha with hysteresis: high above load_high_s of queued prefill work, low below load_low_s."""
    queued_s = s.count[QUEUED_PREFILL_TOKENS] * full_step_s / p.max_chunk_tokens
    if s.gauge[ALPHA] == p.alpha_low and queued_s > p.load_high_s:
        s.gauge[ALPHA] = p.alpha_high
    elif s.gauge[ALPHA] == p.alpha_high and queued_s < p.load_low_s:
        s.gauge[ALPHA] = p.alpha_low
    else:
        return
    for q in range(QUEUES):
        for i in range(s.queues.size[q]):
            r = s.queues.ids[q, i]
            if t.queue[r] == q:
                rekey(s, t, rules, r)
        rebuild(s.queues, t, q)


@compiled
def outlook(s, t, p, model, r, now_s, full_step_s):
    """When request `r` could meet its deadline at the earliest, were it served from now on beside the decodes.

    While a batch request decodes, the prompts queued now are prefilled beside it: they lengthen its steps by at most
    their own prefill time, and by at most full chunks. BESIDE of that is counted.
    """
    left, decodes, context = prefill_left(t, r), s.count[RUNNING], s.count[RUNNING_CONTEXT]
    if left <= p.max_chunk_tokens:
        prefill_s = seconds(model, with_prefill(empty_batch(decodes, context), t.computed_tokens[r], left))
    else:
        prefill_s = full_step_s * left / p.max_chunk_tokens
    earliest_s, deadline_s = now_s + prefill_s, t.deadline_s[r]
    if t.interactive[r]:
        deadline_s += t.emitted_tokens[r] * t.tbt_s[r]  # its next token, when it lost its KV midway
    else:
        tokens = max(0.0, t.decode_estimate[r] - t.emitted_tokens[r] - 1.0)
        if tokens > 0.0:
            step_s = seconds(model, empty_batch(decodes + 1, context + t.target_tokens[r]))
            beside_s = s.count[QUEUED_PREFILL_TOKENS] * full_step_s / p.max_chunk_tokens
            earliest_s += tokens * step_s + BESIDE * min(beside_s, tokens * max(0.0, full_step_s - step_s))
    return Outlook(now_s, earliest_s, deadline_s, left, t.computed_tokens[r] > 0, s.gauge[PREFILL_RATE])


@compiled
def stands_in_the_way(s, t, p, rules, model, r, now_s, full_step_s):
    """Whether a feasible low-importance request must step aside because an important one would miss its deadline.

    The rule (the paper gives none): the first important request in line is feasible, but would miss if `r` and, when
    it is interactive, the other queued important interactive prompts were prefilled before it.
    """
    if t.important[r] or not waiting(s.queues, t, IMPORTANT):
        return False
    first = s.queues.ids[IMPORTANT, 0]
    view = outlook(s, t, p, model, first, now_s, full_step_s)
    ahead = prefill_left(t, r)
    if t.interactive[first]:
        ahead += s.count[IMPORTANT_INTERACTIVE_TOKENS] - view.prefill_left
    wait_s = ahead * full_step_s / p.max_chunk_tokens
    return not ask_doomed(s, rules, view) and ask_doomed(s, rules, delayed(view, wait_s))


@compiled
def relegate(s, t, rules, r):
    """Move a request that is in no queue to its relegated queue.

    A started prompt loses its KV: it may wait for hours, and in lasting overload such prompts would fill the cache
    and shut out the others (seen: nine tenths of it after two and a half hours at 1.6 times capacity).
    """
    count_prefill(s, t, r, -prefill_left(t, r))
    t.relegated[r] = True
    t.relegations[r] += 1
    s.count[RELEGATIONS] += 1
    if t.kv_blocks[r] > 0:
        drop_prefill(s, t, r)
        rekey(s, t, rules, r)
    requeue(s, t, r)


@compiled
def _steps_aside(s, t, p, rules, model, r, now_s, full_step_s):
    """Relegate `r` if it is doomed or in the way of an important request; low importance goes first."""
    if ask_doomed(s, rules, outlook(s, t, p, model, r, now_s, full_step_s)):
        if p.make_room and t.important[r]:
            while waiting(s.queues, t, LOW):
                relegate(s, t, rules, pop(s.queues, t, LOW))
    elif not (p.make_room and stands_in_the_way(s, t, p, rules, model, r, now_s, full_step_s)):
        return False
    relegate(s, t, rules, r)
    return True


@compiled
def _return_if_feasible(s, t, p, rules, model, r, now_s, full_step_s):
    """Un-relegation: a relegated request whose turn came in time after all is an ordinary one again."""
    if p.un_relegate and not ask_doomed(s, rules, outlook(s, t, p, model, r, now_s, full_step_s)):
        t.relegated[r] = False
        s.count[UN_RELEGATIONS] += 1
        count_prefill(s, t, r, prefill_left(t, r))


@compiled
def _limits(s, p):
    total, free = kv_tokens(s)
    low = min(p.kv_low_tokens, total // KV_LOW_PARTS)
    return Limits(p.max_chunk_tokens, p.min_chunk_tokens, p.margin, free, low, p.kv_low_chunk_tokens, p.step_s)


@compiled
def _budget(s, t, rules, model, batch, limits, r, slack_s):
    """Prompt tokens of request `r` that the iteration has room for; of any request when it is negative."""
    prefix = t.computed_tokens[r] if r >= 0 else 0
    room = s.count[STEP_TOKENS] - batch.decodes - batch.prefill_tokens
    tokens = min(room, ask_budget(s, rules, model, batch, limits, prefix, slack_s))
    return tokens if r < 0 else min(tokens, s.count[CHUNK_TOKENS], np.int64(prefill_left(t, r)))


@compiled
def _add(s, t, r, batch, tokens):
    s.plan_ids[s.count[PLANNED]] = r
    s.plan_tokens[s.count[PLANNED]] = tokens
    s.count[PLANNED] += 1
    t.queue[r] = NONE
    return with_prefill(batch, t.computed_tokens[r], tokens)


@compiled
def _keep_started(s, t, p, rules, model, batch, limits, slack_s, now_s, full_step_s):
    """Selective preemption, rule 2: a started prompt is not passed over when one iteration's delay dooms it."""
    for i in range(s.count[PREFILLING]):
        r = s.prefilling[i]
        if t.relegated[r]:
            continue
        view = outlook(s, t, p, model, r, now_s, full_step_s)
        if not ask_doomed(s, rules, view) and ask_doomed(s, rules, delayed(view, full_step_s)):
            tokens = _budget(s, t, rules, model, batch, limits, r, slack_s)
            if tokens > 0:
                batch = _add(s, t, r, batch, tokens)
    return batch


@compiled
def _fill_by_rank(s, t, p, rules, model, batch, limits, slack_s, now_s, full_step_s):
    """Take requests in order until the budget is used up, or KV or slots for new ones run out."""
    taken, slots_taken = 0, 0  # by new requests of this plan; a relegation on the way may free some of the rest
    while _budget(s, t, rules, model, batch, limits, -1, slack_s) > 0:
        q = first_queue(s.queues, t)
        if not waiting(s.queues, t, q):
            return batch
        r = pop(s.queues, t, q)
        if t.relegated[r]:
            _return_if_feasible(s, t, p, rules, model, r, now_s, full_step_s)
        elif p.relegates and s.count[SLOTS] > 0 and _steps_aside(s, t, p, rules, model, r, now_s, full_step_s):
            continue
        new = t.kv_blocks[r] == 0
        blocks = kv_blocks_wanted(s, t, p, r) if new else 0
        tokens = _budget(s, t, rules, model, batch, limits, r, slack_s)
        slots = s.count[SLOTS] - s.count[RUNNING] - s.count[PREFILLING] - slots_taken
        idle = s.count[RUNNING] + s.count[PREFILLING] + slots_taken == 0  # nothing will come free
        short = (blocks > s.count[KV_FREE_BLOCKS] - taken and not idle) or slots <= 0
        no_room = new and (short or r == s.count[REFUSED])
        if tokens < 1 or no_room:
            requeue(s, t, r)
            return _fill_with_started(s, t, rules, model, batch, limits, slack_s) if no_room else batch
        if new:
            taken += blocks
            slots_taken += 1
        batch = _add(s, t, r, batch, tokens)
    return batch


@compiled
def _fill_with_started(s, t, rules, model, batch, limits, slack_s):
    """With no room for a new request, go on with prompts that hold their KV already, so that it comes free."""
    for i in range(s.count[PREFILLING]):
        r = s.prefilling[i]
        tokens = _budget(s, t, rules, model, batch, limits, r, slack_s)
        if tokens > 0 and t.queue[r] != NONE:
            batch = _add(s, t, r, batch, tokens)
    return batch
