"""A fleet on one clock: routers see what a real one could, and every replica serves as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import BUILT_IN
from niyama.sim import ROUTERS, Pool, Requests, Router, System, shared, simulate
from niyama.sim.routers import LIVE_ROUND_ROBIN, fewest_requests
from tests.helpers.workloads import LINEAR, ROOFLINE, kv_for, random_requests

NAMES = sorted(ROUTERS)


def workload(seed: int, n: int, gaps: str = "bursts") -> Requests:
    return random_requests(np.random.default_rng(seed), n, "paper", "typical", "mixed", gaps, 0.6)


def roomy(requests: Requests):
    """The latency model with KV for all requests, and a little less than all of them would like."""
    return replace(LINEAR, kv_tokens=kv_for(requests, 5_000))


def same(a, b, names=("replica", "token_s", "first_scheduled_s", "relegations", "preemptions")):
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@settings(max_examples=8)
@given(seed=st.integers(0, 999), policy=st.sampled_from(["niyama", "niyama-steady", "sarathi-fcfs"]))
@pytest.mark.parametrize("name", NAMES)
def test_a_fleet_of_one_is_the_replica_alone(name, seed, policy):
    requests = workload(seed, 40)
    options = {"noise": 0.1, "seed": seed, "log": True}
    alone = simulate(shared(BUILT_IN[policy]), requests, roomy(requests), ROOFLINE, **options)
    fleet = simulate(shared(BUILT_IN[policy], 1, ROUTERS[name]), requests, roomy(requests), ROOFLINE, **options)
    same(alone, fleet)
    np.testing.assert_array_equal(alone.log, fleet.log)
    assert (alone.iterations, alone.un_relegations) == (fleet.iterations, fleet.un_relegations)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 999),
    policy=st.sampled_from(["niyama", "niyama-steady", "sarathi-edf"]),
    count=st.integers(2, 5),
    overlapped=st.booleans(),
    correct=st.booleans(),
)
def test_requests_in_turn_give_the_bytes_of_round_robin(seed, policy, count, overlapped, correct):
    requests = workload(seed, 60)
    options = {"noise": 0.2, "seed": seed, "overlapped": overlapped, "correct": correct, "delivery_s": 0.01}
    options["log"] = seed % 2 == 0
    dealt = simulate(shared(BUILT_IN[policy], count), requests, roomy(requests), ROOFLINE, **options)
    routed = simulate(shared(BUILT_IN[policy], count, LIVE_ROUND_ROBIN), requests, roomy(requests), ROOFLINE, **options)
    same(dealt, routed)
    assert sorted(map(tuple, dealt.log)) == sorted(map(tuple, routed.log))


@settings(max_examples=8)
@given(seed=st.integers(0, 999), count=st.integers(1, 6), gaps=st.sampled_from(["bursts", "sparse", "at once"]))
@pytest.mark.parametrize("name", NAMES)
def test_every_request_ends_once_on_a_replica_of_its_pool(name, seed, count, gaps):
    requests = workload(seed, 50, gaps)
    pools = (Pool(BUILT_IN["sarathi-fcfs"], count, (requests.classes[0].name,)), Pool(BUILT_IN["niyama"], 2))
    run = simulate(System("two", pools, ROUTERS[name]), requests, roomy(requests), LINEAR, seed=seed)
    first = requests.class_index == 0
    assert (run.replica[first] < count).all() and (run.replica[~first] >= count).all()
    assert (run.replica < count + 2).all() and (run.replica >= 0).all()
    assert (run.token_s > 0).all() and (run.first_scheduled_s >= requests.arrival_s).all()
    for tokens, arrival_s in zip(np.split(run.token_s, run.token_start[1:-1]), requests.arrival_s, strict=True):
        assert tokens[0] > arrival_s and (np.diff(tokens) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(name):
    requests = workload(5, 80)
    system = shared(BUILT_IN["niyama"], 3, ROUTERS[name])
    runs = [simulate(system, requests, roomy(requests), LINEAR, seed=seed) for seed in (1, 1, 2)]
    same(runs[0], runs[1])
    assert (name == "power-of-two") == bool((runs[0].replica != runs[2].replica).any())


@settings(max_examples=8)
@given(seed=st.integers(0, 999), row=st.integers(0, 30))
@pytest.mark.parametrize("name", NAMES)
def test_no_router_sees_an_output_length_before_its_end(name, seed, row):
    """Two workloads that differ in how long one output is are routed alike until the shorter one has ended."""
    requests = workload(seed, 60)
    short, long = requests.output_tokens.copy(), requests.output_tokens.copy()
    short[row], long[row] = 3, 90
    card = roomy(replace(requests, output_tokens=long))
    system = shared(BUILT_IN["niyama"], 3, ROUTERS[name])
    runs = [simulate(system, replace(requests, output_tokens=tokens), card, LINEAR) for tokens in (short, long)]
    end_s = runs[0].token_s[runs[0].token_start[row + 1] - 1]
    before = requests.arrival_s < end_s
    np.testing.assert_array_equal(runs[0].replica[before], runs[1].replica[before])


def test_statistics_are_as_old_as_is_said():
    """Whoever sees nothing for a minute knows its own bookings only: requests go in turn, however busy a replica is."""
    requests = workload(3, 60)
    assert requests.arrival_s[-1] < 60
    blind = Router("blind", fewest_requests, stats_age_s=60.0)
    run = simulate(shared(BUILT_IN["niyama"], 4, blind), requests, roomy(requests), LINEAR)
    np.testing.assert_array_equal(run.replica, np.arange(60) % 4)
    sees = simulate(shared(BUILT_IN["niyama"], 4, ROUTERS["least-requests"]), requests, roomy(requests), LINEAR)
    assert (sees.replica != run.replica).any()


def test_queues_grow_with_what_waits():
    """Thousands of requests within seconds on one replica, whose queues begin with room for fewer."""
    n, classes = 9000, workload(1, 10).classes
    lengths, arrival_s = (np.full(n, 300), np.full(n, 2)), np.linspace(0.0, 4.0, n)
    requests = Requests(classes, np.arange(n) % 3, arrival_s, *lengths, np.ones(n, bool))
    dealt = simulate(shared(BUILT_IN["sarathi-edf"], 1), requests, LINEAR, LINEAR)
    routed = simulate(shared(BUILT_IN["sarathi-edf"], 1, LIVE_ROUND_ROBIN), requests, LINEAR, LINEAR)
    same(dealt, routed)
