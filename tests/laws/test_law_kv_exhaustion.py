"""Running out of KV never crashes, never deadlocks, and costs the least important holder first."""

from dataclasses import replace

import numpy as np
import pytest

from niyama import rules
from niyama.requests import QUEUED
from niyama.sim import Requests
from tests.helpers.stepping import plans
from tests.helpers.workloads import CLASSES, EVERY_POLICY, ROOFLINE, Case, steps
from tests.laws.test_law_conservation import assert_counters_match, assert_kv_is_conserved

every_policy = pytest.mark.parametrize("name", EVERY_POLICY)
GREEDY = (("kv_reserve", 0.0), ("estimator", "constant"), ("estimator_value", 1.0))  # admits as many as fit now


def small_kv(prompts, outputs, important, kv_tokens, overrides=GREEDY):
    n = len(prompts)
    requests = Requests(
        CLASSES["loose"],
        np.zeros(n, int),
        np.zeros(n),
        np.array(prompts),
        np.array(outputs),
        np.array(important),
    )
    return Case(requests, replace(ROOFLINE, kv_tokens=kv_tokens), ROOFLINE, 0.0, 0, overrides)


@every_policy
def test_decodes_that_outgrow_the_kv_are_recomputed_and_all_finish(name):
    """Ten requests grow to 8 blocks each in a pool of 10 blocks."""
    case = small_kv([16] * 10, [112] * 10, [True] * 10, 160)
    run = case.run(case.policy(name))
    assert run.preemptions.sum() > 0
    assert np.all(run.token_s > 0.0)


@every_policy
def test_the_important_request_keeps_its_kv_and_the_low_one_gives_it_up(name):
    case = small_kv([16, 16], [100, 100], [True, False], 128)
    run = case.run(case.policy(name))
    assert run.preemptions[0] == 0 < run.preemptions[1]


@every_policy
def test_a_request_that_fills_the_whole_kv_is_served_alone(name):
    """Prompt and output take every block; the estimate asks for more than there is."""
    case = small_kv([100, 100, 100], [60, 60, 60], [True] * 3, 160, overrides=())
    run = case.run(case.policy(name))
    assert run.preemptions.sum() == 0
    for r in range(2):
        finished_s = sorted(run.token_s[run.token_start[1:] - 1])[r]
        assert np.sum(run.first_scheduled_s < finished_s) == r + 1


@every_policy
def test_full_reservation_of_true_outputs_never_preempts(name):
    """With the oracle's lengths and kv_reserve 1 every admitted request can run to its end."""
    overrides = (("kv_reserve", 1.0), ("estimator", "oracle"))
    case = small_kv([5, 50, 17, 33, 1] * 4, [90, 3, 40, 1, 100] * 4, [True, False] * 10, 240, overrides)
    assert case.run(case.policy(name)).preemptions.sum() == 0


@every_policy
@pytest.mark.parametrize("reserve", [0.0, 1e9])
def test_absurd_estimates_and_reservations_are_bounded_by_the_kv(name, reserve):
    overrides = (("kv_reserve", reserve), ("estimator", "constant"), ("estimator_value", 1e9))
    case = small_kv([30, 30, 30], [20, 20, 20], [True] * 3, 160, overrides)
    run = case.run(case.policy(name))
    assert np.all(run.token_s > 0.0)
    assert run.log[:, 9].min() >= 0  # free KV blocks


@every_policy
def test_a_prompt_in_prefill_gives_up_its_kv_with_all_counters_right(name):
    """A decode grows to 8 blocks beside a low-importance prompt of 188 blocks, taken in small chunks, of 194."""
    case = small_kv(
        [16, 3000], [100, 2], [True, False], 3104, (*GREEDY, ("max_chunk_tokens", 34), ("min_chunk_tokens", 1))
    )
    policy = replace(
        case.policy(name), rank=rules.shortest_remaining_prompt, prefill_budget=rules.fixed_chunk, due=rules.always
    )
    lost_in_prefill = False
    for _, table, scheduler in steps(case, policy):
        assert_kv_is_conserved(table, scheduler.totals)
        assert_counters_match(table, scheduler)
        lost_in_prefill |= table.preemptions[1] == 1 and table.state[1] == QUEUED and table.emitted_tokens[1] == 0
    assert lost_in_prefill


@every_policy
def test_without_room_for_the_next_request_started_prompts_go_on(name):
    """The second request, first in rank, does not fit beside the first: it waits, and the plan is not empty."""
    case = small_kv([5000, 100], [1, 1], [True, True], 5008, ())
    case = replace(case, requests=replace(case.requests, arrival_s=np.array([0.0, 0.001])))
    policy = case.policy(name)
    policy = replace(policy, rank=rules.shortest_remaining_prompt, max_chunk_tokens=min(2552, policy.max_chunk_tokens))
    order = [r for planned in plans(case, policy) for r, _ in planned.chunks]
    assert order == sorted(order)
    assert order.count(0) > 1 == order.count(1)
