"""SlideBatching (ProServe, arXiv 2512.12928): who is urgent by density, the rest by deadline; urgency slides with load.

Source: xllm@87e8d6e `xllm/core/scheduler/mix_scheduler.cpp`; read, not copied. With e the predicted time of a request's
next work and Phi the sum of all e, a request is urgent when it has less than AGGRESSIVE * Phi in hand. Urgent ones
come first, by weight over e; the others by deadline. A step lasts as long as the least time in hand that can be met,
and at least 0.65 of the tightest TBT.

Ours, where the kernel cannot do the same: decodes do not compete with prompts in one order, but run where they are
urgent or no prompt waits; Phi counts the queued prompts, without the constant overhead of a step; deadlines of tokens
are Eq 2's (the source's count from the first token). Its protection of starved prompts, off by default, is left out.
"""

from niyama import Policy
from niyama.latency.model import fit_tokens
from niyama.rules import budget_rule, due_rule, never, rank_rule

CHUNK_TOKENS, AGGRESSIVE, LEAST_TBTS = 2500, 1.0, 0.65
URGENT = -1e6  # before every deadline


@rank_rule
def urgent_by_density(job, alpha):
    """Urgent prompts by weight over predicted time, before the others by deadline."""
    token_s = job.step_s / CHUNK_TOKENS
    if job.deadline_s - job.now_s >= AGGRESSIVE * job.queued_prefill_tokens * token_s:
        return job.deadline_s
    return URGENT - job.weight / max(1e-9, job.prefill_left * token_s)


@due_rule
def urgent_decode(decode, step):
    """Whether the decode has less time in hand than all that waits takes; everybody where no prompt waits."""
    load_s = step.queued_prefill_tokens * step.step_s / CHUNK_TOKENS
    return step.queued_prefill_tokens == 0 or decode.slack_s < AGGRESSIVE * load_s + step.step_s


@budget_rule
def sliding_budget(model, batch, limits, prefix, slack_s):
    """What fits into the least time in hand, or into 0.65 of the tightest TBT where that is more."""
    room = max(0, limits.max_chunk_tokens - batch.prefill_tokens)
    step_s = slack_s
    if limits.tbt_s < 1e300:
        step_s = max(step_s, LEAST_TBTS * limits.tbt_s)
    return room if step_s > 1e300 else fit_tokens(model, batch, prefix, step_s / limits.margin, room)


slide_batching = Policy(
    "slide-batching",
    rank=urgent_by_density,
    prefill_budget=sliding_budget,
    doomed=never,
    due=urgent_decode,
    max_chunk_tokens=CHUNK_TOKENS,
    rerank_s=0.001,
    protect_started=False,
    make_room=False,
)
