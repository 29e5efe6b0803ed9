"""Time only moves forward, and no replica rests while there is work it could do."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.helpers.workloads import COLUMN, POLICIES, cases, last_token_s, tokens_of

every_policy = pytest.mark.parametrize("name", POLICIES)


@every_policy
@settings(max_examples=30)
@given(case=cases())
def test_token_times_increase_and_follow_arrival(name, case):
    """Arrival <= first scheduled < first token < second token < ... for every request."""
    run = case.run(case.policy(name), log=False)
    assert np.all(run.first_scheduled_s >= case.requests.arrival_s)
    for r in range(len(case.requests)):
        assert np.all(np.diff(tokens_of(run, r), prepend=run.first_scheduled_s[r]) > 0.0)


@every_policy
@settings(max_examples=40)
@given(case=cases())
def test_no_replica_idles_while_an_arrived_request_is_unfinished(name, case):
    """An iteration starts where the last one ended, or at the next arrival when nothing was left, and is not empty."""
    run = case.run(case.policy(name))
    start_s = run.log[:, COLUMN["start_s"]]
    end_s = start_s + run.log[:, COLUMN["duration_s"]]
    assert np.all(run.log[:, COLUMN["decodes"]] + run.log[:, COLUMN["prefill_tokens"]] > 0)
    finished_s, arrival_s = last_token_s(run), case.requests.arrival_s
    assert start_s[0] == arrival_s[0]
    for before, after in zip(end_s, start_s[1:], strict=False):
        if after != before:
            assert after > before
            assert after in arrival_s
            assert np.all((arrival_s >= after) | (finished_s <= before))
