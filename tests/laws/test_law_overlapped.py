"""Planning ahead: nothing is lost, nothing is known too early, and a run may stop and go on anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from numba.core.config import DISABLE_JIT

from niyama import load_policy
from niyama.kernel import Kernel
from niyama.latency import empty_batch, seconds, with_prefill
from niyama.sim import Requests, shared, simulate
from niyama.sim.learning import nothing_learned
from niyama.sim.noise import as_noise
from niyama.sim.overlapped import new_flight
from niyama.sim.run import SEED_STRIDE
from niyama.sim.set_up import set_up
from niyama.sim.stepping import addresses, run_until
from tests.helpers.workloads import CLASSES, COLUMN, POLICIES, ROOFLINE, cases, last_token_s, tokens_of

every_policy = pytest.mark.parametrize("name", POLICIES)


def overlapped(case, name):
    run = (shared(case.policy(name)), case.requests, case.executor, case.predictor)
    return simulate(*run, noise=case.noise, seed=case.seed, log=True, overlapped=True)


@every_policy
@settings(max_examples=30)
@given(case=cases())
def test_every_request_finishes_and_all_tokens_are_run(name, case):
    run, requests = overlapped(case, name), case.requests
    assert np.all(np.isfinite(run.token_s)) and np.all(run.token_s > 0.0)
    for r in range(len(requests)):
        times = tokens_of(run, r)
        assert np.all(np.diff(times) > 0.0) and times[0] > run.first_scheduled_s[r] >= requests.arrival_s[r]
    prefilled, decoded = run.log[:, COLUMN["prefill_tokens"]].sum(), run.log[:, COLUMN["decodes"]].sum()
    decodes = (requests.output_tokens - 1).sum()
    assert prefilled >= requests.prompt_tokens.sum()
    assert decodes - run.preemptions.sum() <= decoded <= decodes
    if run.preemptions.sum() == 0:
        assert (prefilled, decoded) == (requests.prompt_tokens.sum(), decodes)


@every_policy
@settings(max_examples=30)
@given(case=cases())
def test_an_iteration_knows_no_arrival_after_the_one_before_it_began(name, case):
    """One after the other, the device never idle between two of them unless nobody was there.

    A plan may come to nothing, because all that run end or lose their KV, or the others are left out: then it is made
    again at once, knowing more.
    """
    run, arrival_s = overlapped(case, name), case.requests.arrival_s
    made_again = run.preemptions.any() or POLICIES[name].leaves_out
    ended_s = last_token_s(run)
    start_s, duration_s = run.log[:, COLUMN["start_s"]], run.log[:, COLUMN["duration_s"]]
    assert np.all(duration_s > 0.0) and np.all(start_s[1:] >= start_s[:-1] + duration_s[:-1])
    pauses = start_s[1:][start_s[1:] > start_s[:-1] + duration_s[:-1]]
    assert np.all(np.isin(pauses, arrival_s))
    before = dict(zip(start_s[1:].tolist(), start_s[:-1].tolist(), strict=True))
    for arrived_s, first_s in zip(arrival_s.tolist(), run.first_scheduled_s.tolist(), strict=True):
        nobody_there = not np.any((run.first_scheduled_s < first_s) & (ended_s > first_s))
        assert nobody_there or arrived_s <= before[first_s] or made_again


@settings(max_examples=15)
@given(case=cases())
def test_a_run_stops_and_goes_on_after_any_iteration(case):
    """Iteration by iteration is the same as in one go; at the end all KV is free."""
    policy, requests, n, kv_tokens = case.policy("niyama"), case.requests, len(case.requests), case.executor.kv_tokens
    start = np.concatenate([[0], np.cumsum(requests.output_tokens)])
    rows, token_s, stream = np.arange(n), np.zeros(start[-1]), case.seed * SEED_STRIDE
    noise, learning = as_noise(case.noise).numbers(stream), nothing_learned(case.predictor, True, False)
    state = set_up(requests, rows, start, token_s, policy, kv_tokens, noise, False, False, learning)
    world, table, scheduler = state
    kernel = Kernel(scheduler, table, policy.params(), policy.rules(), case.predictor.build())
    parts = world, kernel, case.executor.build(), new_flight(n, policy.max_running)
    where = np.zeros((1, 0), np.int64) if DISABLE_JIT else addresses(parts)[np.newaxis]
    while world.progress["finished"] < n:
        before = world.progress["iterations"]
        run_until(where, [parts], np.inf, 1)
        assert world.progress["iterations"] - before == 1 or world.progress["finished"] == n
    whole = overlapped(case, "niyama")
    np.testing.assert_array_equal(world.token_s, whole.token_s)
    assert scheduler.totals["kv_free_blocks"] == scheduler.totals["kv_total_blocks"]
    assert scheduler.totals["kv_held_tokens"] == 0


def step_s(decodes, context, *chunks):
    """Modelled seconds of an iteration; chunks are (prefix, tokens)."""
    batch = empty_batch(decodes, context)
    for prefix, tokens in chunks:
        batch = with_prefill(batch, prefix, tokens)
    return seconds(ROOFLINE.build(), batch)


def test_worked_by_hand():
    """B arrives while A's prompt runs: A's next iteration is planned already, so B waits one iteration more."""
    first_s = step_s(0, 0, (0, 100))
    requests = Requests(
        CLASSES["loose"],
        np.array([1, 1]),
        np.array([0.0, first_s / 2]),
        prompt_tokens=np.array([100, 50]),
        output_tokens=np.array([3, 2]),
        important=np.ones(2, bool),
    )
    run = simulate(shared(load_policy("niyama")), requests, ROOFLINE, ROOFLINE, overlapped=True)
    a = first_s + np.cumsum([0.0, step_s(1, 100), step_s(1, 101, (0, 50))])
    np.testing.assert_allclose(tokens_of(run, 0), a, rtol=1e-12)
    assert run.first_scheduled_s[1] == a[1]
    np.testing.assert_allclose(tokens_of(run, 1), a[2] + np.array([0.0, step_s(1, 50)]), rtol=1e-12)
    assert run.iterations == 4
