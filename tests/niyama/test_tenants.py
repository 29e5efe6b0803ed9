"""Tenants: who is charged what, who goes first, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from niyama import PAPER_CLASSES
from niyama.policies import BUILT_IN
from niyama.scheduler import Arrival, Scheduler
from niyama.sim import Requests, shared, simulate
from tests.helpers.peers import PEERS
from tests.helpers.reference_formulas import ROOFLINE as CARD

VTC = PEERS["vtc"]


def flood(n):
    """Tenant 0 sends n requests at once, tenant 1 a request each second, from 1 to 10 s: 400 tokens in, 20 out."""
    arrival_s = np.concatenate([np.zeros(n), np.arange(1, 11)])
    tenant = np.concatenate([np.zeros(n, int), np.ones(10, int)])
    lengths = np.full(n + 10, 400), np.full(n + 10, 20)
    which, important = np.zeros(n + 10, int), np.ones(n + 10, bool)
    return Requests(PAPER_CLASSES, which, arrival_s, *lengths, important, tenant=tenant)


def first_token_s(run):
    return run.token_s[run.token_start[:-1]]


def test_under_vtc_a_flood_of_one_tenant_does_not_delay_another():
    """First come, first served has the small tenant wait behind the flood; VTC serves it in its first second."""
    requests = flood(n=800)
    wait_s = {}
    for policy in (VTC, BUILT_IN["sarathi-fcfs-512"]):
        run = simulate(shared(policy), requests, CARD, CARD)
        wait_s[policy.name] = (first_token_s(run) - requests.arrival_s)[800:].max()
    assert wait_s["vtc"] < 1.0 < 5.0 < wait_s["sarathi-fcfs-512"]


def test_two_tenants_that_always_wait_are_served_alike():
    """Equal demand, one tenant's requests all before the other's: of the first half to be served each has half."""
    n = 200
    requests = replace(flood(n=2 * n - 10), arrival_s=np.zeros(2 * n), tenant=np.repeat([0, 1], n))
    run = simulate(shared(VTC), requests, CARD, CARD)
    order = np.argsort(first_token_s(run), kind="stable")
    first_half = requests.tenant[order[:n]]
    assert abs((first_half == 0).sum() - (first_half == 1).sum()) <= 4


@pytest.mark.parametrize(("tenant", "shown"), [(-1, "-1"), (0.5, "0.5"), (70_000, "70000")])
def test_a_tenant_is_a_number_from_0(tenant, shown):
    requests = replace(flood(n=2), tenant=np.array([0.0] * 11 + [tenant]))
    with pytest.raises(
        ValueError, match=rf"request 11: tenant is {shown}.*; it must be a whole number from 0 to 65535"
    ):
        simulate(shared(VTC), requests, CARD, CARD)


def test_a_scheduler_refuses_a_tenant_that_it_was_not_made_for():
    scheduler = Scheduler(VTC, CARD, kv_tokens=10_000, apps=1, tenants=2)
    scheduler.arrive(Arrival(0.0, 10, 6.0, 0.05, True, True, 0, 1))
    with pytest.raises(ValueError, match="tenant is 2; it must be 0 to 1, or tenants of Scheduler must be more"):
        scheduler.arrive(Arrival(0.0, 10, 6.0, 0.05, True, True, 0, 2))
