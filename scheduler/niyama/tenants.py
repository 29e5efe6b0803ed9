"""What each tenant was served, counted by the kernel so that fairness is a rule (`rank`) and nothing more.

A tenant's virtual counter is what it was served, in tokens, as in VTC (arXiv 2401.00588): prompt tokens, and output
tokens twice. A tenant that comes back with nobody of its own waiting starts from the least counter of those that wait,
or of the last that was served when nobody does: time without requests is no credit.
"""

from __future__ import annotations

import numpy as np

from niyama.jit import compiled

SERVED, VIRTUAL, WAITING = range(3)  # columns of State.tenants: tokens, tokens, requests that wait for prefill
OUTPUT_WEIGHT = 2.0


@compiled
def charge(s, t, r, prompt_tokens, output_tokens):
    """Request `r` was served so many tokens."""
    if s.tenants.shape[0] > 0:
        tokens = prompt_tokens + OUTPUT_WEIGHT * output_tokens
        s.tenants[t.tenant[r], SERVED] += tokens
        s.tenants[t.tenant[r], VIRTUAL] += tokens


@compiled
def tenant_waits(s, t, r):
    """Request `r` waits for prefill from now on."""
    if s.tenants.shape[0] == 0:
        return
    tenant = t.tenant[r]
    if s.tenants[tenant, WAITING] == 0.0:
        least = np.inf
        for i in range(s.tenants.shape[0]):
            if s.tenants[i, WAITING] > 0.0:
                least = min(least, s.tenants[i, VIRTUAL])
        if least == np.inf:
            least = s.tenants[s.totals.last_tenant, VIRTUAL]
        s.tenants[tenant, VIRTUAL] = max(s.tenants[tenant, VIRTUAL], least)
    s.tenants[tenant, WAITING] += 1.0


@compiled
def tenant_waits_no_more(s, t, r):
    """Request `r` is prefilled, or gone."""
    if s.tenants.shape[0] > 0:
        s.tenants[t.tenant[r], WAITING] -= 1.0
        s.totals.last_tenant = t.tenant[r]


@compiled
def served_to(s, t, r):
    """What the tenant of `r` was served, and its virtual counter; 0 where tenants are not told apart."""
    if s.tenants.shape[0] == 0:
        return 0.0, 0.0
    return s.tenants[t.tenant[r], SERVED], s.tenants[t.tenant[r], VIRTUAL]
