"""FairBatching (arXiv 2510.14392): urgent decodes first, then prompts by deadline, and the other decodes where room is.

Source: the abstract and a third-party summary; no code was found. A decode is urgent when one more step without it
makes its token late (its deadlines are Niyama's Eq 2); a step lasts as long as the urgent decodes allow.

Not verified, so ours: urgent means less than URGENT_STEPS full steps in hand, the present one and the next, in which
its token would come; the other decodes run where no prompt waits; the step model is the policy's predictor, not the
paper's online least squares; the report of prefill headroom to a router is left out.
"""

from niyama import Policy
from niyama.rules import due_rule, dynamic_chunk, earliest_deadline, never

URGENT_STEPS = 2.0


@due_rule
def urgent(decode, step):
    """Whether the token would be late if it were left out once more; everybody where no prompt waits."""
    return step.queued_prefill_tokens == 0 or decode.slack_s < URGENT_STEPS * step.step_s


fair_batching = Policy(
    "fair-batching",
    rank=earliest_deadline,
    prefill_budget=dynamic_chunk,
    doomed=never,
    due=urgent,
    protect_started=False,
    make_room=False,
)
