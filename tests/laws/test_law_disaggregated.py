"""Requests that come with KV from elsewhere, and the two pools that hand them over: nothing lost or out of turn."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import BUILT_IN
from niyama.latency import empty_batch, seconds, with_prefill
from niyama.requests import FINISHED
from niyama.sim import Disaggregated, KVLink, Requests, shared, simulate, simulate_disaggregated
from niyama.state import KV_BLOCK_TOKENS
from tests.helpers.workloads import CLASSES, COLUMN, LINEAR, POLICIES, ROOFLINE, cases, steps, tokens_of
from tests.laws.test_law_conservation import assert_counters_match

every_policy = pytest.mark.parametrize("name", POLICIES)
FCFS = BUILT_IN["sarathi-fcfs"]
DECODE = replace(FCFS, name="decode", max_chunk_tokens=8192, kv_reserve=0.0)
LINK = KVLink(kv_bytes_per_token=131_072, bytes_per_s=25e9, delay_s=0.001)


def begun_elsewhere(case, seed):
    """The case with requests that have had some of their tokens already: none, all but one, or between."""
    outputs = case.requests.output_tokens
    emitted = np.random.default_rng(seed).integers(0, outputs)
    return replace(case, requests=replace(case.requests, emitted_tokens=emitted))


def pools(policy, decode=DECODE, nodes=(1, 1), link=LINK, **more):
    return Disaggregated("pools", shared(policy, nodes[0]), shared(decode, nodes[1]), link, **more)


def through(system, case):
    """The case's requests through both pools."""
    return simulate_disaggregated(
        system, case.requests, case.executor, case.predictor, noise=case.noise, seed=case.seed
    )


def some_requests(prompts, outputs, arrival_s=None):
    n = len(prompts)
    arrivals = np.zeros(n) if arrival_s is None else np.array(arrival_s)
    return Requests(
        CLASSES["loose"], np.zeros(n, int), arrivals, np.array(prompts), np.array(outputs), np.ones(n, bool)
    )


@every_policy
@settings(max_examples=25)
@given(case=cases(), seed=st.integers(0, 9))
def test_requests_begun_elsewhere_get_their_other_tokens_here(name, case, seed):
    """Every token but those already out comes, once; of what came with them only the last token is computed."""
    case = begun_elsewhere(case, seed)
    requests, run = case.requests, case.run(case.policy(name))
    emitted = requests.emitted_tokens
    owner = np.repeat(np.arange(len(requests)), requests.output_tokens)
    position = np.arange(len(owner)) - run.token_start[owner]
    here = position >= emitted[owner]
    assert np.all(run.token_s[here] > 0.0) and np.all(run.token_s[~here] == 0.0)
    later = here[1:] & here[:-1] & (owner[1:] == owner[:-1])
    assert np.all(np.diff(run.token_s)[later] > 0.0)
    if run.preemptions.sum() == 0:
        assert run.log[:, COLUMN["prefill_tokens"]].sum() == np.where(emitted > 0, 1, requests.prompt_tokens).sum()
        assert run.log[:, COLUMN["decodes"]].sum() == (requests.output_tokens - emitted - 1).sum()


@every_policy
@settings(max_examples=12)
@given(case=cases(most=20), seed=st.integers(0, 9))
def test_kv_from_elsewhere_fills_blocks_and_frees_them(name, case, seed):
    case = begun_elsewhere(case, seed)
    for _, table, scheduler in steps(case, case.policy(name)):
        totals, holds = scheduler.totals, table.kv_blocks > 0
        assert table.kv_blocks.sum() + totals["kv_free_blocks"] == totals["kv_total_blocks"]
        assert totals["kv_free_blocks"] >= 0
        assert totals["kv_held_tokens"] == table.computed_tokens[holds].sum()
        assert np.all((table.computed_tokens <= table.kv_blocks * KV_BLOCK_TOKENS)[holds])
    assert_counters_match(table, scheduler)
    assert totals["kv_free_blocks"] == totals["kv_total_blocks"] and totals["kv_held_tokens"] == 0
    assert np.all(table.state == FINISHED)


@every_policy
@settings(max_examples=15)
@given(case=cases(), nodes=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_pools_lose_nothing_and_keep_the_order_of_things(name, case, nodes):
    """All tokens come; the first by the prefill pool, then the KV's way, then the others."""
    system = pools(case.policy(name), nodes=nodes)
    done = through(system, case)
    requests, run = case.requests, done.run
    np.testing.assert_array_equal(np.diff(run.token_start), requests.output_tokens)
    assert np.all(run.token_s > 0.0)
    assert sorted(done.decoded) == list(np.flatnonzero(requests.output_tokens > 1))
    first_s = run.token_s[run.token_start[:-1]]
    assert np.all(first_s > requests.arrival_s)
    sizes = requests.prompt_tokens[done.decoded] * LINK.kv_bytes_per_token / LINK.bytes_per_s
    assert np.all(done.kv_arrived_s >= first_s[done.decoded] + sizes + LINK.delay_s - 1e-9)
    assert np.all(np.diff(done.kv_arrived_s) >= 0.0)
    for i, r in enumerate(done.decoded):
        tokens_s = tokens_of(run, r)
        assert done.kv_arrived_s[i] <= done.decode.first_scheduled_s[i] < tokens_s[1]
        assert np.all(np.diff(tokens_s) > 0.0)


@every_policy
@settings(max_examples=15)
@given(case=cases(), draw=st.integers(0, 99))
def test_the_prefill_pool_does_not_know_how_long_outputs_are(name, case, draw):
    """Other outputs, the same first tokens: nothing flows back from the decode pool."""
    roomy = replace(case, executor=replace(case.executor, kv_tokens=case.executor.kv_tokens + 16_000))
    outputs = np.random.default_rng(draw).integers(1, 250, len(case.requests))
    other = replace(roomy, requests=replace(case.requests, output_tokens=outputs))
    first, second = (through(pools(case.policy(name)), c).run for c in (roomy, other))
    np.testing.assert_array_equal(first.token_s[first.token_start[:-1]], second.token_s[second.token_start[:-1]])
    for field in ("replica", "first_scheduled_s", "relegations", "still_relegated"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


@settings(max_examples=25)
@given(case=cases(), running=st.sampled_from((1, 2, 256)))
def test_decode_nodes_admit_first_come_first_served_within_their_limits(case, running):
    """The earlier a request's KV came the earlier it begins, and no more than `max_running` decode at a time."""
    system = pools(FCFS, replace(DECODE, max_running=running))
    roomy = replace(case.executor, kv_tokens=case.executor.kv_tokens + 200_000)
    done = simulate_disaggregated(system, case.requests, roomy, case.predictor)
    began_s, ended_s = done.decode.first_scheduled_s, done.decode.token_s[done.decode.token_start[1:] - 1]
    assert np.all(np.diff(began_s) >= 0.0)
    for now_s in began_s:
        assert np.sum((began_s <= now_s) & (now_s < ended_s)) <= running


def test_decode_nodes_with_little_kv_begin_again_and_finish_all():
    """Ten requests of 8 blocks in the end, 10 blocks in all: KV is given up and computed again, whole."""
    requests = some_requests([16] * 10, [112] * 10)
    done = simulate_disaggregated(pools(FCFS), requests, replace(ROOFLINE, kv_tokens=160), ROOFLINE)
    assert done.decode.preemptions.sum() > 0
    assert np.all(done.run.token_s > 0.0)
    np.testing.assert_array_equal(done.run.preemptions[done.decoded], done.decode.preemptions)


@pytest.mark.parametrize("card", [LINEAR, ROOFLINE], ids=lambda card: card.kind)
def test_a_lone_request_takes_what_its_steps_and_its_transfer_take(card):
    """By hand: 1,000 prompt tokens, the KV's way, a step for the token handed over, two decodes."""
    done = simulate_disaggregated(pools(replace(FCFS, max_chunk_tokens=8192)), some_requests([1000], [4]), card, card)
    model = card.build()
    times_s = [seconds(model, with_prefill(empty_batch(0, 0), 0, 1000))]
    arrived_s = times_s[0] + 1000 * 131_072 / 25e9 + 0.001
    times_s.append(arrived_s + seconds(model, with_prefill(empty_batch(0, 0), 1000, 1)))
    for context in (1001, 1002):
        times_s.append(times_s[-1] + seconds(model, empty_batch(1, context)))
    np.testing.assert_allclose(done.run.token_s, times_s, rtol=1e-12)
    np.testing.assert_allclose(done.kv_arrived_s, [arrived_s], rtol=1e-12)


def test_a_link_sends_one_after_the_other():
    """By hand: 1 s and 2 s of bytes ready at 0 and 0.5, out of order; then idle, then 3 s."""
    link = KVLink(kv_bytes_per_token=10.0, bytes_per_s=100.0, delay_s=0.25)
    arrived_s = link.arrivals(np.array([0.5, 0.0, 10.0]), np.array([20, 10, 30]))
    np.testing.assert_allclose(arrived_s, [3.25, 1.25, 13.25])


@pytest.mark.parametrize(
    ("field", "value"), [("kv_bytes_per_token", 0.0), ("bytes_per_s", -1.0), ("bytes_per_s", np.nan), ("delay_s", -0.1)]
)
def test_a_link_refuses_senseless_numbers(field, value):
    with pytest.raises(ValueError, match=rf"KV link: {field} is {value}"):
        replace(LINK, **{field: value})


def test_one_token_outputs_end_in_the_prefill_pool():
    done = simulate_disaggregated(pools(FCFS), some_requests([100, 200], [1, 1]), LINEAR, LINEAR)
    assert len(done.decoded) == len(done.kv_arrived_s) == done.decode.iterations == 0
    assert np.all(done.run.token_s > 0.0)


def test_the_allowance_is_taken_off_batch_deadlines_only():
    """A batch prompt that would just make it is relegated when the rest needs the time; an interactive one is not."""
    n = 2
    requests = Requests(
        CLASSES["contended"], np.array([0, 1]), np.zeros(n), np.full(n, 500), np.full(n, 2), np.ones(n, bool)
    )
    niyama = BUILT_IN["niyama"]
    ample = simulate_disaggregated(pools(niyama), requests, LINEAR, LINEAR).run
    tight = simulate_disaggregated(pools(niyama, batch_allowance_s=11.99), requests, LINEAR, LINEAR).run
    assert ample.relegations.tolist() == [0, 0]
    assert tight.relegations.tolist() == [0, 1]
    with pytest.raises(ValueError, match="batch_allowance_s is -1"):
        pools(niyama, batch_allowance_s=-1.0)


@settings(max_examples=10)
@given(case=cases())
def test_a_seed_gives_the_same_bytes_again(case):
    system = pools(case.policy("niyama"), nodes=(2, 2))
    first, second = through(system, case), through(system, case)
    for a, b in zip(astuple(first.run), astuple(second.run), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


def test_tokens_from_elsewhere_must_leave_some():
    requests = replace(some_requests([10, 10], [3, 3]), emitted_tokens=np.array([1, 3]))
    with pytest.raises(ValueError, match="request 1: emitted_tokens is 3; it must be 0 or more and less than output"):
        simulate(shared(FCFS), requests, LINEAR, LINEAR)
