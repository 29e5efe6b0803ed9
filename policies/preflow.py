"""PREFLOW (vllm-ascend pull request #16360, open): prompts by the slowdown they suffer, for nodes that only prefill.

Source: the pull request's text; read, not copied. A prompt's urgency is 2^(age/D) / (P * R), where W(n) = n(n+1)/2 is
the attention work of n tokens, P the work of the whole prompt and R what is left of it. In logarithms, without the
present time, which is the same for all: ln P + ln R + arrival * ln 2 / D, the least first. So it needs no new ranking.

Not verified: D (10 s is ours). Chunks are Niyama's, for the source says nothing of decodes.
"""

import math

from niyama import Policy
from niyama.rules import dynamic_chunk, never, rank_rule

DOUBLING_S = 10.0


@rank_rule
def slowdown(job, alpha):
    """The logarithm of one over PREFLOW's urgency."""
    done = job.prompt_tokens - job.prefill_left
    whole = 0.5 * job.prompt_tokens * (job.prompt_tokens + 1.0)
    left = whole - 0.5 * done * (done + 1.0)
    return math.log(whole) + math.log(left) + job.arrival_s * math.log(2.0) / DOUBLING_S


preflow = Policy(
    "preflow",
    rank=slowdown,
    prefill_budget=dynamic_chunk,
    doomed=never,
    protect_started=False,
    make_room=False,
)
