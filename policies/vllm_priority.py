"""vLLM's own priority scheduling with its long-prefill threshold (--scheduling-policy priority).

Source: vLLM 0.32 `vllm/v1/core/sched/scheduler.py`; read, not copied. Requests by priority, here their importance, then
first come, first served; decodes and prompts share a step, and no prompt gets more of it than the threshold while
others are there. Numbers are vLLM's defaults where it has one: steps of 2048 tokens; the threshold is 0 there, and 512
is ours. When KV runs out the lowest priority loses it, as the kernel does for every policy.
"""

from niyama import Policy
from niyama.rules import budget_rule, never, rank_rule

STEP_TOKENS, LONG_PREFILL_TOKENS = 2048, 512
LOW = 1e9  # seconds, later than any arrival


@rank_rule
def priority_then_arrival(job, alpha):
    """High importance first, then who came first."""
    return job.arrival_s + (0.0 if job.weight == 1.0 else LOW)


@budget_rule
def up_to_the_threshold(model, batch, limits, prefix, slack_s):
    """What the step has room for, no more than the threshold for one prompt unless it is alone."""
    room = max(0, limits.max_chunk_tokens - batch.decodes - batch.prefill_tokens)
    return room if limits.prompts + limits.decodes < 2 else min(room, LONG_PREFILL_TOKENS)


vllm_priority = Policy(
    "vllm-priority",
    rank=priority_then_arrival,
    prefill_budget=up_to_the_threshold,
    doomed=never,
    max_chunk_tokens=STEP_TOKENS,
    protect_started=False,
    make_room=False,
)
