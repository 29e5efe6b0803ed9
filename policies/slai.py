"""SLAI (arXiv 2508.01002): decodes with time in hand leave their place in the step to prompts, the shortest first.

Source: agrimUT/SLAI@5098a7a, `sarathi/core/scheduler/slai_scheduler.py`; read, not copied. A step has 512 tokens. A
decode must run from its last start time on: its last token's time plus the TBT minus `offset` mean steps, where offset
is 5, and 10 from 96 % of used KV on. Then come prompts that have begun, new ones by length, and the other decodes.

Ours, for lack of a better: the time since the last token is counted in mean steps; the other decodes run where all
prompts fit into the step; more than 128 urgent decodes run, too. A batch request's TBT is the one that meets its TTLT.
Not verified: the claim (median TTFT -53 %, capacity +26 % over Sarathi) is from memory.
"""

from niyama import Policy
from niyama.rules import due_rule, fixed_chunk, never, rank_rule

STEP_TOKENS, OFFSET, OFFSET_KV_LOW, KV_LOW = 512, 5.0, 10.0, 0.96
BEGUN = 1e9  # more than any prompt has tokens


@rank_rule
def shortest_prompt(job, alpha):
    """Prompts that have begun, then the shortest."""
    return job.prompt_tokens - (BEGUN if job.prefill_left < job.prompt_tokens else 0.0)


@due_rule
def last_start_time(decode, step):
    """Whether the next token would be late if it started any later; everybody where there is room."""
    offset = OFFSET_KV_LOW if step.kv_used >= KV_LOW else OFFSET
    urgent = (decode.left_out + offset) * step.mean_step_s >= decode.interval_s
    return urgent or step.queued_prefill_tokens + step.decodes <= STEP_TOKENS


slai = Policy(
    "slai",
    rank=shortest_prompt,
    prefill_budget=fixed_chunk,
    doomed=never,
    due=last_start_time,
    max_chunk_tokens=STEP_TOKENS,
    protect_started=False,
    make_room=False,
)
