"""Where one policy must be another: alpha 0 is EDF, equal deadlines are FCFS, no deadlines mean full chunks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from niyama import QoSClass, rules
from tests.helpers.workloads import COLUMN, DYNAMIC, POLICIES, assert_same_run, cases

every_policy = pytest.mark.parametrize("name", POLICIES)
ALL_DUE_S = 1024.0


def with_alpha_0(policy):
    return replace(policy, rank=rules.hybrid, alpha_low=0.0, alpha_high=0.0)


def all_due_at_once(requests):
    """The same requests, each in a class of its own, so that all deadlines are one; exact in binary."""
    classes = tuple(
        QoSClass(f"{r}", ttft_s=ALL_DUE_S - arrival_s, tbt_s=0.05)
        if requests.classes[requests.class_index[r]].interactive
        else QoSClass(f"{r}", ttlt_s=ALL_DUE_S - arrival_s)
        for r, arrival_s in enumerate(requests.arrival_s)
    )
    return replace(requests, classes=classes, class_index=np.arange(len(requests)))


@every_policy
@settings(max_examples=25)
@given(case=cases())
def test_hybrid_priority_with_alpha_0_is_earliest_deadline_first(name, case):
    """Eq 4 and 5 with alpha 0, and every other number equal, is EDF to the last bit."""
    hybrid = with_alpha_0(case.policy(name))
    assert_same_run(case.run(hybrid), case.run(replace(hybrid, rank=rules.earliest_deadline)))


@every_policy
@settings(max_examples=25)
@given(case=cases())
def test_with_equal_deadlines_alpha_0_serves_first_come_first(name, case):
    """When all deadlines are one, the deadline orders nothing and arrival does, relegation and preemption included."""
    case = replace(case, requests=all_due_at_once(case.requests))
    hybrid = with_alpha_0(case.policy(name))
    assert_same_run(case.run(hybrid), case.run(replace(hybrid, rank=rules.first_come)))


@every_policy
@settings(max_examples=25)
@given(case=cases())
def test_first_come_first_served_starts_requests_in_arrival_order(name, case):
    """Without relegation no request is first scheduled before one that arrived earlier."""
    policy = replace(case.policy(name), rank=rules.first_come, doomed=rules.never, make_room=False)
    run = case.run(policy, log=False)
    if run.preemptions.sum() == 0:
        assert np.all(np.diff(run.first_scheduled_s) >= 0.0)


@pytest.mark.parametrize("name", [name for name in DYNAMIC if POLICIES[name].prefill_budget is rules.dynamic_chunk])
@settings(max_examples=60)
@given(case=cases(classes=("loose", "absurd")))
def test_without_deadlines_to_meet_every_prefill_iteration_is_a_full_chunk(name, case):
    """Very large SLOs: each iteration prefills the largest chunk, or all that has arrived, when KV does not bind."""
    case = replace(case, executor=replace(case.executor, kv_tokens=2_000_000))
    policy = replace(case.policy(name), kv_low_tokens=0, max_running=256)
    run, requests = case.run(policy), case.requests
    done = 0
    for row in run.log:
        arrived = requests.prompt_tokens[requests.arrival_s <= row[COLUMN["start_s"]]].sum()
        assert row[COLUMN["prefill_tokens"]] == min(policy.max_chunk_tokens, arrived - done)
        done += row[COLUMN["prefill_tokens"]]
    in_order = case.run(with_alpha_0(policy), log=False)
    assert np.all(np.diff(in_order.first_scheduled_s) >= 0.0)
