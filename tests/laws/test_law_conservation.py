"""Nothing is lost and nothing appears from nowhere: requests, tokens, KV blocks and the scheduler's counters."""

import numpy as np
import pytest
from hypothesis import given, settings

from niyama.requests import DECODING, FINISHED, QUEUED
from niyama.state import KV_BLOCK_TOKENS
from tests.helpers.workloads import COLUMN, POLICIES, cases, steps

every_policy = pytest.mark.parametrize("name", POLICIES)


@every_policy
@settings(max_examples=40)
@given(case=cases())
def test_every_request_finishes_with_exactly_its_output_tokens(name, case):
    """One terminal state per accepted request, relegated ones included: all of its tokens, each at a real time."""
    run = case.run(case.policy(name))
    assert np.all(run.token_s > 0.0)
    assert np.all(np.isfinite(run.token_s))
    assert not np.any(np.isnan(run.first_scheduled_s))
    np.testing.assert_array_equal(np.diff(run.token_start), case.requests.output_tokens)


@every_policy
@settings(max_examples=40)
@given(case=cases())
def test_tokens_run_equal_tokens_asked_for(name, case):
    """The log's prefill and decode tokens add up to the workload's, plus what preempted requests computed again."""
    run, requests = case.run(case.policy(name)), case.requests
    prefilled, decoded = run.log[:, COLUMN["prefill_tokens"]].sum(), run.log[:, COLUMN["decodes"]].sum()
    prompts, decodes = requests.prompt_tokens.sum(), (requests.output_tokens - 1).sum()
    if run.preemptions.sum() == 0:
        assert (prefilled, decoded) == (prompts, decodes)
    assert prefilled >= prompts
    assert decodes - run.preemptions.sum() <= decoded <= decodes  # a preempted decode gets a token from its prefill
    assert np.all(run.log[:, COLUMN["prefill_requests"]] <= run.log[:, COLUMN["prefill_tokens"]])


@every_policy
@settings(max_examples=16)
@given(case=cases(most=20))
def test_kv_and_counters_agree_with_the_table_after_every_iteration(name, case):
    """Held and free blocks make the whole, never negative, and each counter is what the table adds up to."""
    policy = case.policy(name)
    for _, table, scheduler in steps(case, policy):
        assert_kv_is_conserved(table, scheduler.totals)
        assert_counters_match(table, scheduler)
        assert_progress_in_range(case.requests, table)
        assert scheduler.totals["running"] + scheduler.totals["prefilling"] <= policy.max_running
    assert scheduler.totals["kv_free_blocks"] == scheduler.totals["kv_total_blocks"]
    assert (
        scheduler.totals["kv_held_tokens"]
        == scheduler.totals["queued"]
        == scheduler.totals["queued_prefill_tokens"]
        == 0
    )
    assert np.all(table.state == FINISHED)


def assert_kv_is_conserved(table, totals):
    assert table.kv_blocks.sum() + totals["kv_free_blocks"] == totals["kv_total_blocks"]
    assert totals["kv_free_blocks"] >= 0
    assert np.all(table.kv_blocks >= 0)
    assert np.all(table.computed_tokens <= table.kv_blocks * KV_BLOCK_TOKENS)
    assert totals["kv_held_tokens"] == table.computed_tokens.sum()


def assert_counters_match(table, scheduler):
    totals = scheduler.totals
    queued, decoding = table.state == QUEUED, table.state == DECODING
    left = table.target_tokens - table.computed_tokens
    ordinary = queued & ~table.relegated
    assert totals["queued"] == queued.sum()
    assert totals["queued_prefill_tokens"] == left[ordinary].sum()
    assert totals["important_interactive_tokens"] == left[ordinary & table.important & table.interactive].sum()
    assert totals["interactive_tokens"] == left[ordinary & table.interactive].sum()
    rates, most = (tokens / (table.deadline_s - table.arrival_s) for tokens in (left, table.target_tokens))
    for name, mask in (("interactive_rate", table.interactive), ("batch_rate", ~table.interactive)):
        assert np.isclose(totals[name], rates[ordinary & mask].sum(), rtol=1e-9, atol=1e-12 * most.max()), name
    assert totals["running_context"] == table.computed_tokens[decoding].sum()
    assert sorted(scheduler.running[: totals["running"]]) == list(np.flatnonzero(decoding))
    holders = np.flatnonzero(queued & (table.kv_blocks > 0))
    assert sorted(scheduler.prefilling[: totals["prefilling"]]) == list(holders)
    assert totals["relegations"] == table.relegations.sum()
    assert totals["relegations"] - totals["un_relegations"] == table.relegated.sum()
    assert totals["preemptions"] == table.preemptions.sum()


def assert_progress_in_range(requests, table):
    """0 <= computed <= target while queued; target and context follow from the prompt and the tokens put out."""
    queued, decoding = table.state == QUEUED, table.state == DECODING
    assert np.all(table.computed_tokens >= 0)
    assert np.all(table.computed_tokens[queued] < table.target_tokens[queued])
    written = requests.prompt_tokens + table.emitted_tokens
    assert np.array_equal(table.target_tokens[queued], written[queued])
    assert np.array_equal(table.computed_tokens[decoding], written[decoding] - 1)
    assert np.all(table.emitted_tokens <= requests.output_tokens)
