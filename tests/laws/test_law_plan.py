"""What every plan must be: disjoint chunks of at least one token within budget, KV, slots and slack; never nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import rules
from niyama.kv import kv_blocks_wanted
from niyama.requests import DECODING, FINISHED, QUEUED
from tests.helpers.peers import PEERS
from tests.helpers.stepping import plans
from tests.helpers.workloads import COLUMN, DYNAMIC, POLICIES, cases
from tests.laws.test_law_conservation import assert_counters_match, assert_kv_is_conserved, assert_progress_in_range

every_policy = pytest.mark.parametrize("name", POLICIES)


@every_policy
@settings(max_examples=12)
@given(case=cases(most=20))
def test_a_plan_is_disjoint_and_within_budget_kv_and_slots(name, case):
    """Each chunk once, of a queued request, 1..left tokens; the whole within chunk size, free KV and max_running."""
    policy = case.policy(name)
    for planned in plans(case, policy):
        before, table, chunks = planned.before, planned.table, planned.chunks
        ids = [r for r, _ in chunks]
        gave_up = np.flatnonzero((before.state == DECODING) & (table.state == QUEUED))  # its slot, for an urgent one
        assert len(gave_up) <= policy.take_slots
        assert len(set(ids)) == len(ids)
        for r, tokens in chunks:
            assert before.state[r] == QUEUED or r in gave_up
            assert 1 <= tokens <= table.target_tokens[r] - table.computed_tokens[r]  # a plan may take KV away
        assert planned.batch.prefill_tokens == sum(tokens for _, tokens in chunks)
        left_out = ((table.state == DECODING) & (table.left_out > 0)).sum()
        assert planned.batch.decodes == planned.totals_before["running"] - len(gave_up) - left_out
        of_its_own = name in PEERS and policy.prefill_budget not in (rules.fixed_chunk, rules.grid_chunk)
        shared_with_decodes = not of_its_own and policy.prefill_budget not in (rules.dynamic_chunk, rules.tbt_chunk)
        used = planned.batch.prefill_tokens + (planned.batch.decodes if shared_with_decodes else 0)
        assert planned.batch.prefill_tokens == 0 or used <= policy.max_chunk_tokens
        new = [r for r in ids if before.kv_blocks[r] == 0 or r in gave_up]
        wanted = sum(kv_blocks_wanted(planned.scheduler, table, policy.params(), np.int32(r)) for r in new)
        assert wanted <= planned.totals_before["kv_free_blocks"] + before.kv_blocks[gave_up].sum()
        slots_used = planned.batch.decodes + left_out + planned.totals_before["prefilling"] + len(new)
        assert slots_used <= policy.max_running
        assert planned.batch.decodes + planned.batch.prefill_tokens > 0


@every_policy
@settings(max_examples=8)
@given(case=cases(most=12), seed=st.integers(0, 99))
def test_an_engine_that_grants_less_than_planned_breaks_nothing(name, case, seed):
    """A plan is a proposal: with any part granted, nothing included, KV and counters stay right and all finish."""
    rng = np.random.default_rng(seed)
    for planned in plans(case, case.policy(name), grant=lambda tokens: rng.integers(0, tokens + 1)):
        assert_kv_is_conserved(planned.before, planned.totals_before)
        assert_progress_in_range(case.requests, planned.before)
    assert_counters_match(planned.table, planned.scheduler)
    assert np.all(planned.table.state == FINISHED)


@pytest.mark.parametrize("name", DYNAMIC)
@settings(max_examples=60)
@given(case=cases())
def test_a_planned_step_fits_the_least_slack_or_is_the_minimum_chunk(name, case):
    """Dynamic chunking: margin * predicted step <= least decode slack, unless the chunk is no more than the minimum."""
    policy = case.policy(name)
    log = case.run(policy).log
    predicted_s, slack_s = log[:, COLUMN["predicted_s"]], log[:, COLUMN["min_slack_s"]]
    prefill = log[:, COLUMN["prefill_tokens"]]
    fits = policy.margin * predicted_s <= slack_s + 1e-9 * np.abs(slack_s) + 1e-12
    assert np.all(fits | (prefill <= policy.min_chunk_tokens))
    assert np.all(prefill <= policy.max_chunk_tokens)
