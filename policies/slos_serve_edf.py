"""SLOs-Serve (arXiv 2504.08784) in its EDF mode: deadline order, decodes only when due, misses at best effort.

Source: `AdmCtrlScheduler` and `promax_spec_sch.h` as a code index shows them (repository and licence unresolved); read,
not copied. Prompts and decodes go by the deadline of their next token; a decode enters a step only when it is due;
steps are as long as the tightest TPOT, and end before the next deadline of a decode in them; who is predicted to miss
is served at best effort ("soft admission"). Steps have at most 16384 tokens.

Ours: the tightest TPOT is the policy number `step_s`; due means that the token would come late after this step and one
more; the admission test is the kernel's forecast of each prompt, not a simulation of the whole plan; best effort is
relegation. Its main mode, the choice of a set of requests by dynamic programming, is not one of local rules.
"""

from niyama import Policy
from niyama.latency.model import fit_tokens
from niyama.rules import budget_rule, due_rule, earliest_deadline, predicted_miss

TPOT_S, STEPS = 0.05, 2.0


@due_rule
def only_when_due(decode, step):
    """Whether the token is late unless it comes in this step; everybody where no prompt waits."""
    return step.queued_prefill_tokens == 0 or decode.slack_s < STEPS * TPOT_S


@budget_rule
def one_tpot(model, batch, limits, prefix, slack_s):
    """What fits into the tightest TPOT and the slack; the least chunk where the slack has run out."""
    room = max(0, limits.max_chunk_tokens - batch.prefill_tokens)
    fits = fit_tokens(model, batch, prefix, min(slack_s, limits.step_s) / limits.margin, room)
    return min(room, max(fits, limits.min_chunk_tokens - batch.prefill_tokens))


slos_serve_edf = Policy(
    "slos-serve-edf",
    rank=earliest_deadline,
    prefill_budget=one_tpot,
    doomed=predicted_miss,
    due=only_when_due,
    max_chunk_tokens=16_384,
    step_s=TPOT_S,
    protect_started=False,
    make_room=False,
)
