"""Deadlines: Eq 1-3 of the paper and the artifact's variants, in worked numbers."""

import numpy as np
import pytest

from niyama import PAPER_CLASSES, QoSClass, load_policy
from niyama.commit import set_token_deadlines
from niyama.limits import decode_slack
from niyama.qos import token_deadline_s
from niyama.requests import fill, new_table
from niyama.state import new_state

CHAT, BATCH = QoSClass("chat", ttft_s=6.0, tbt_s=0.05), QoSClass("batch", ttlt_s=600.0)
EXACT, ARTIFACT = load_policy("niyama").params(), load_policy("qoserve-artifact").params()
STEADY = load_policy("niyama-steady").params()


def table_of(*classes, estimate=101.0):
    """One request of each class, all arriving at 100 s."""
    n = len(classes)
    table = new_table(n)
    fill(
        table,
        arrival_s=np.full(n, 100.0),
        prompt_tokens=np.full(n, 10),
        deadline_slo_s=np.array([c.deadline_slo_s for c in classes]),
        tbt_s=np.array([c.tbt_s or 0.0 for c in classes]),
        interactive=np.array([c.interactive for c in classes]),
        important=np.ones(n, bool),
        app=np.zeros(n, int),
    )
    table.decode_estimate[:] = estimate
    return table


def token_due_s(table, position):
    """Deadline of output token `position` (1-based) by the token interval of request 0."""
    return table.tokens_due_from_s[0] + (position - 1) * table.token_interval_s[0]


def test_equations_1_to_3():
    """First token at arrival + TTFT, each further one a TBT later; a batch request has the one deadline."""
    assert token_deadline_s(100.0, CHAT, 1) == 106.0
    assert token_deadline_s(100.0, CHAT, 11) == pytest.approx(106.5)
    assert token_deadline_s(100.0, BATCH, 1) == token_deadline_s(100.0, BATCH, 50) == 700.0
    assert [c.deadline_slo_s for c in PAPER_CLASSES] == [6.0, 600.0, 1800.0]


def test_the_table_holds_the_deadline_that_ranks():
    """Eq 1 for an interactive request, Eq 3 for a batch one."""
    assert list(table_of(CHAT, BATCH).deadline_s) == [106.0, 700.0]


@pytest.mark.parametrize("first_token_s", [100.2, 106.0])
def test_token_deadlines_of_an_interactive_request_follow_eq_2(first_token_s):
    """However early the first token was."""
    table = table_of(CHAT)
    set_token_deadlines(table, EXACT, 0, first_token_s)
    for position in (2, 3, 40):
        assert token_due_s(table, position) == pytest.approx(token_deadline_s(100.0, CHAT, position), abs=1e-9)


def test_a_batch_request_spreads_its_estimated_output_over_the_time_left():
    """First of 101 tokens at 200 s, last due at 700 s: one every 5 s."""
    table = table_of(BATCH)
    set_token_deadlines(table, EXACT, 0, 200.0)
    assert token_due_s(table, 2) == pytest.approx(205.0)
    assert token_due_s(table, 101) == pytest.approx(700.0)


@pytest.mark.parametrize("qos", [CHAT, BATCH])
def test_a_late_or_relegated_request_has_no_token_deadlines_to_protect(qos):
    table = table_of(qos)
    set_token_deadlines(table, EXACT, 0, table.deadline_s[0] + 0.001)
    assert token_due_s(table, 2) == np.inf
    table = table_of(qos)
    table.relegated[0] = True
    set_token_deadlines(table, EXACT, 0, 100.5)
    assert token_due_s(table, 2) == np.inf


def test_artifact_token_deadlines_are_one_tbt_looser():
    """`arrived + ttft + thr * (n_out + 1)`: the second token is due two TBTs after the first deadline."""
    table = table_of(CHAT)
    set_token_deadlines(table, ARTIFACT, 0, 103.0)
    assert token_due_s(table, 2) == pytest.approx(106.0 + 2 * 0.05)
    assert token_due_s(table, 9) == pytest.approx(token_deadline_s(100.0, CHAT, 9) + 0.05)


def test_artifact_token_deadlines_shift_with_a_late_first_token():
    """First token 4 s late: every later deadline is 4 s later too."""
    table = table_of(CHAT)
    set_token_deadlines(table, ARTIFACT, 0, 110.0)
    assert token_due_s(table, 2) == pytest.approx(110.0 + 2 * 0.05)


def test_artifact_batch_requests_get_0_4_s_per_token():
    """TTLT 600 s less 101 tokens of 0.4 s make a first deadline of 559.6 s after arrival, then 0.4 s per token."""
    table = table_of(BATCH)
    set_token_deadlines(table, ARTIFACT, 0, 110.0)
    assert token_due_s(table, 2) == pytest.approx(659.6 + 2 * 0.4)
    assert token_due_s(table, 12) == pytest.approx(659.6 + 12 * 0.4)


def test_slack_is_the_least_time_to_a_next_token():
    """Two decodes after 3 tokens each, one due at 106.15 s, the other unprotected; without decodes no limit."""
    table, scheduler = table_of(CHAT, CHAT), new_state(2, 4, 1, 1600, 0.0)
    assert decode_slack(scheduler, table, EXACT, 105.0) == (np.inf, np.inf, np.inf)
    set_token_deadlines(table, EXACT, 0, 101.0)
    set_token_deadlines(table, EXACT, 1, 106.5)
    table.emitted_tokens[:] = 3
    scheduler.running[:2], scheduler.totals["running"] = (0, 1), 2
    assert decode_slack(scheduler, table, EXACT, 105.0) == pytest.approx((1.15, np.inf, np.inf))


def test_a_reserve_of_tokens_is_no_slack():
    """4 TBTs of 50 ms of an interactive decode's time; a batch request's is all to be spent."""
    table, scheduler = table_of(CHAT, BATCH), new_state(2, 4, 1, 1600, 0.0)
    for r in (0, 1):
        set_token_deadlines(table, STEADY, r, 101.0)
    table.emitted_tokens[:] = 3
    scheduler.running[:2], scheduler.totals["running"] = (0, 1), 2
    assert decode_slack(scheduler, table, STEADY, 105.0) == pytest.approx((1.15 - 4 * 0.05, 0.05, 1.15 - 3 * 0.05))
    scheduler.running[0], scheduler.totals["running"] = 1, 1
    batch_s = 101.0 + 3 * 5.99 - 105.0
    assert decode_slack(scheduler, table, STEADY, 105.0) == pytest.approx((batch_s, np.inf, batch_s + 5.99))
