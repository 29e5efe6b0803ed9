"""SCORPIO (arXiv 2505.23022), its variant that delays: deadline order, misses wait, and decodes run by credit.

Source: MisterBrookT/Scorpio@d27778c `vllm/core/scheduler.py`; read, not copied. Prompts by first-token deadline; one
that is predicted to miss it by DELAY_MARGIN_S or less to spare waits behind all others. The decodes with the tightest
TBT run in every step; the others earn tightest over own TBT a step and run, at the price of 1, from 1 on.

Ours: the prediction is the kernel's forecast of one prompt served at once, not the source's line fitted to the prompts
before it; the TPOT guard (a limit on admissions by a fitted model of the mix of TBTs) and early rejection are left out,
for no rule can refuse. A step has 2048 tokens; the source is vLLM 0, which prefills whole prompts.
"""

from niyama import Policy
from niyama.rules import doomed_rule, due_rule, earliest_deadline, fixed_chunk

STEP_TOKENS, DELAY_MARGIN_S = 2048, 0.005


@doomed_rule
def misses_with_margin(forecast):
    """Whether the first token is predicted later than 5 ms before its deadline."""
    return forecast.earliest_s + DELAY_MARGIN_S > forecast.deadline_s


@due_rule
def has_credit(decode, step):
    """Whether the decode has earned a token."""
    return decode.credit >= 1.0


scorpio = Policy(
    "scorpio",
    rank=earliest_deadline,
    prefill_budget=fixed_chunk,
    doomed=misses_with_margin,
    due=has_credit,
    max_chunk_tokens=STEP_TOKENS,
    protect_started=False,
    make_room=False,
)
