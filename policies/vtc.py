"""VTC (arXiv 2401.00588): the tenant that was served least goes first; within a tenant, first come, first served.

The counters are the kernel's (`niyama.tenants`), with the paper's weights: a prompt token counts 1, an output token 2.
A tenant that returns starts from the least counter of those that wait, as in the paper. Ours: a tenant is charged when
its tokens are computed, not when its request is chosen, and a step has 512 tokens. Without tenants this is FCFS.
"""

from niyama import Policy
from niyama.rules import fixed_chunk, never, rank_rule

PER_SECOND = 1e-6  # tokens: so little that arrival decides only within a tenant


@rank_rule
def least_served(job, alpha):
    """The tenant's virtual counter."""
    return job.tenant_virtual + PER_SECOND * job.arrival_s


vtc = Policy(
    "vtc",
    rank=least_served,
    prefill_budget=fixed_chunk,
    doomed=never,
    max_chunk_tokens=512,
    rerank_s=0.001,
    protect_started=False,
    make_room=False,
)
