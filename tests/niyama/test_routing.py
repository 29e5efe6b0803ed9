"""Routing against plain versions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import PAPER_CLASSES, load_policy
from niyama.latency import empty_batch
from niyama.sim import LEAST_WORK, Pool, Requests, System, shared, simulate
from niyama.sim.system import route
from tests.helpers.reference_formulas import ROOFLINE, plain_seconds

NIYAMA, SARATHI = load_policy("niyama"), load_policy("sarathi-fcfs")
SILO = System("silo", (Pool(SARATHI, 2, ("Q1",)), Pool(NIYAMA, 3, ("Q2", "Q3"))))


def rows(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, n), np.cumsum(rng.exponential(0.1, n)), rng.integers(1, 5000, n)


def test_round_robin_deals_in_turn():
    index, arrival_s, prompt_tokens = rows(11, 0)
    replicas = route(shared(NIYAMA, 4), PAPER_CLASSES, index, arrival_s, prompt_tokens, ROOFLINE)
    assert list(replicas) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]


def test_a_silo_deals_each_class_over_its_own_pool():
    """Pool Q1 owns replicas 0 and 1, the pool of Q2 and Q3 owns 2 to 4."""
    index, arrival_s, prompt_tokens = rows(40, 1)
    replicas = route(SILO, PAPER_CLASSES, index, arrival_s, prompt_tokens, ROOFLINE)
    first = index == 0
    np.testing.assert_array_equal(replicas[first], np.arange(first.sum()) % 2)
    np.testing.assert_array_equal(replicas[~first], 2 + np.arange((~first).sum()) % 3)


@settings(max_examples=40)
@given(n=st.integers(1, 60), seed=st.integers(0, 99), count=st.integers(1, 5))
def test_least_work_sends_each_request_where_work_ends_first(n, seed, count):
    """Against a plain loop; the work is the prompt at the rate of full chunks."""
    index, arrival_s, prompt_tokens = rows(n, seed)
    rate_s = float(plain_seconds(ROOFLINE, empty_batch(0, 0), 0, 2500)) / 2500
    free_s, expected = [0.0] * count, []
    for at_s, tokens in zip(arrival_s, prompt_tokens, strict=True):
        k = free_s.index(min(free_s))
        free_s[k] = max(free_s[k], at_s) + tokens * rate_s
        expected.append(k)
    system = shared(NIYAMA, count, LEAST_WORK)
    assert list(route(system, PAPER_CLASSES, index, arrival_s, prompt_tokens, ROOFLINE)) == expected


def test_replicas_of_a_system_run_as_if_alone():
    """Each replica of a silo gives the times that its requests get on a system of one."""
    index, arrival_s, prompt_tokens = rows(40, 2)
    requests = Requests(PAPER_CLASSES, index, arrival_s, prompt_tokens, prompt_tokens % 7 + 1, index > 0)
    whole = simulate(SILO, requests, ROOFLINE, ROOFLINE)
    for k in range(SILO.replicas):
        mine = np.flatnonzero(whole.replica == k)
        columns = ("class_index", "arrival_s", "prompt_tokens", "output_tokens", "important")
        alone = replace(requests, **{name: getattr(requests, name)[mine] for name in columns})
        run = simulate(shared(SARATHI if k < 2 else NIYAMA), alone, ROOFLINE, ROOFLINE)
        np.testing.assert_array_equal(whole.token_s[whole.token_start[mine]], run.token_s[run.token_start[:-1]])


def test_progress_counts_finished_requests():
    index, arrival_s, prompt_tokens = rows(30, 3)
    requests = Requests(PAPER_CLASSES, index, arrival_s, prompt_tokens, prompt_tokens % 7 + 1, index > 0)
    seen = []
    simulate(SILO, requests, ROOFLINE, ROOFLINE, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 30


@pytest.mark.parametrize("n", [0, 1])
def test_an_empty_or_single_workload_runs(n):
    index, arrival_s, prompt_tokens = rows(n, 4)
    requests = Requests(PAPER_CLASSES, index, arrival_s, prompt_tokens, prompt_tokens, index > 0)
    assert len(simulate(SILO, requests, ROOFLINE, ROOFLINE, log=True).token_s) == prompt_tokens.sum()
