"""Decodes left out of a step: they keep their KV and get no token, nobody waits for ever, and no budget counts them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from niyama import rules
from niyama.due import MOST_LEFT_OUT
from niyama.requests import DECODING
from tests.helpers.stepping import plans
from tests.helpers.workloads import COLUMN, LEAVES_OUT, assert_same_run, cases, steps

every_such_policy = pytest.mark.parametrize("name", LEAVES_OUT)


@every_such_policy
@settings(max_examples=12)
@given(case=cases(most=20))
def test_who_is_left_out_keeps_its_kv_gets_no_token_and_is_taken_in_the_end(name, case):
    """A decode's token comes in the very steps that it is not left out of, and those it is left out of are few."""
    before = None
    for _, table, scheduler in steps(case, case.policy(name)):
        running = scheduler.running[: scheduler.totals["running"]]
        assert table.left_out[running].max(initial=0) <= MOST_LEFT_OUT
        assert np.all(table.credit[running] >= 0.0)
        if before is not None:
            on = (before.state == DECODING) & (table.state == DECODING) & (table.preemptions == before.preemptions)
            out = on & (table.left_out > 0)
            got = table.emitted_tokens - before.emitted_tokens
            assert np.all(got[out] == 0) and np.all(got[on & ~out] == 1)
            assert np.all(table.kv_blocks[out] >= before.kv_blocks[out])
            assert np.all(table.left_out[out] == before.left_out[out] + 1)
        before = type(table)(*(column.copy() for column in table))


@every_such_policy
@settings(max_examples=12)
@given(case=cases(most=20))
def test_a_plan_counts_the_others_alone(name, case):
    """Decodes, context and slack of a planned step are those of the decodes that take part."""
    for planned in plans(case, case.policy(name)):
        table, running = planned.table, planned.scheduler.running[: planned.scheduler.totals["running"]]
        taken = running[table.left_out[running] == 0]
        assert planned.batch.decodes == len(taken)
        assert planned.batch.decode_context == table.computed_tokens[taken].sum()
        due_s = table.tokens_due_from_s[taken] + table.emitted_tokens[taken] * table.token_interval_s[taken]
        least_s = due_s.min(initial=np.inf) - planned.now_s
        if len(taken) < len(running):  # else they may be taken after all, for want of prompts
            assert np.isclose(planned.scheduler.totals["min_slack_s"], least_s, rtol=1e-9, atol=1e-9)


@settings(max_examples=12)
@given(case=cases(most=30))
def test_a_rule_that_leaves_out_nobody_decides_as_none_does(case):
    """`due` that is always True, asked, gives what is given where nobody asks, to the last bit."""

    @rules.due_rule
    def everybody(decode, step):
        return True

    policy = case.policy("niyama")
    assert_same_run(case.run(policy), case.run(replace(policy, due=everybody)))


@settings(max_examples=12)
@given(case=cases(most=30))
def test_decodes_alone_are_not_left_waiting(case):
    """With a rule that leaves out everybody each step still has a token: all decodes', where no prompt has any."""
    run = case.run(case.policy("nobody-due"))
    alone = run.log[:, COLUMN["prefill_tokens"]] == 0
    assert np.all(run.log[alone, COLUMN["decodes"]] > 0)
