"""P-PAS (arXiv 2608.15171, vLLM RFC #52906): small prefill steps while prompts contend beside decodes, else large ones.

Source: TimoSaemann/ppas-vllm@f36197d (a patch of vLLM); read, not copied. Its numbers: at most 2048 prompt tokens in a
step where two or more prompts are in prefill or wait and at least one request decodes, else the whole step of 16384.
First come, first served; nobody is relegated. The claim, mean end-to-end latency -8.5 % and -11.3 % against fixed steps
of 2k and 16k, is its authors'. Our latency cards were fitted to steps of 2.5k tokens: longer ones are extrapolated.
"""

from niyama import Policy
from niyama.rules import budget_rule, first_come, never

STEP_TOKENS, CONTENDED_TOKENS = 16_384, 2048


@budget_rule
def fewer_under_contention(model, batch, limits, prefix, slack_s):
    """P-PAS's prefill budget."""
    most = limits.max_chunk_tokens - batch.decodes
    if limits.prompts >= 2 and limits.decodes >= 1:
        most = CONTENDED_TOKENS
    return max(0, most - batch.prefill_tokens)


ppas = Policy(
    "ppas",
    rank=first_come,
    prefill_budget=fewer_under_contention,
    doomed=never,
    max_chunk_tokens=STEP_TOKENS,
    protect_started=False,
    make_room=False,
)
