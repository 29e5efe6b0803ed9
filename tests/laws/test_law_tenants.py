"""What tenants were served is counted, and counting it changes nothing for a policy that does not look."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama.requests import FINISHED, QUEUED
from niyama.tenants import OUTPUT_WEIGHT, SERVED, VIRTUAL, WAITING
from tests.helpers.workloads import POLICIES, assert_same_run, cases, steps

every_policy = pytest.mark.parametrize("name", ("niyama", "vtc", "slai"))


def with_tenants(case, tenants, seed):
    """The case's requests dealt out to so many tenants at random."""
    tenant = np.random.default_rng(seed).integers(0, tenants, len(case.requests))
    return replace(case, requests=replace(case.requests, tenant=tenant))


@every_policy
@settings(max_examples=12)
@given(case=cases(most=20), tenants=st.integers(1, 4), seed=st.integers(0, 9))
def test_each_tenant_is_charged_what_its_requests_were_computed(name, case, tenants, seed):
    """After every iteration: its prompt tokens once, its output tokens twice; who waits is counted."""
    case = with_tenants(case, tenants, seed)
    for _, table, scheduler in steps(case, POLICIES[name]):
        count = len(scheduler.tenants)
        assert count == case.requests.tenants
        if table.preemptions.sum() == 0:
            # of a request's tokens in KV those beyond its prompt were output before
            computed = np.minimum(table.computed_tokens, case.requests.prompt_tokens)
            computed = np.where(table.state == FINISHED, case.requests.prompt_tokens, computed)
            served = computed + OUTPUT_WEIGHT * table.emitted_tokens
            np.testing.assert_allclose(
                scheduler.tenants[:, SERVED], np.bincount(case.requests.tenant, served, minlength=count)
            )
        waiting = np.bincount(case.requests.tenant[table.state[: len(case.requests)] == QUEUED], minlength=count)
        np.testing.assert_array_equal(scheduler.tenants[:, WAITING], waiting)
        assert np.all(scheduler.tenants[:, VIRTUAL] >= scheduler.tenants[:, SERVED] - 1e-9)


@pytest.mark.parametrize("name", ("niyama", "slai"))
@settings(max_examples=12)
@given(case=cases(most=30), seed=st.integers(0, 9))
def test_who_does_not_look_at_tenants_decides_as_without(name, case, seed):
    """To the last bit."""
    assert_same_run(case.run(POLICIES[name]), with_tenants(case, 3, seed).run(POLICIES[name]))
