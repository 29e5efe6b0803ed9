"""Five requests A to E on one replica, as in the paper's Fig 6 but our own: what each policy saves and loses."""

from dataclasses import replace

import numpy as np
import pytest

from artifact.experiments.five_requests import CLASSES, REQUESTS
from niyama import load_policy
from niyama.sim import shared, simulate
from tests.helpers.reference_formulas import ROOFLINE

CARD = replace(ROOFLINE, kv_tokens=1_000_000)


def missed(policy):
    """Names of the requests that miss their TTFT or TTLT, and of those that were relegated."""
    run = simulate(shared(policy), REQUESTS, CARD, CARD)
    counted = np.where([c.interactive for c in CLASSES], run.token_start[:-1], run.token_start[1:] - 1)
    late = run.token_s[counted] > REQUESTS.arrival_s + [c.deadline_slo_s for c in CLASSES]
    assert np.all(run.token_s > 0)  # the late and the relegated finish too
    names = np.array([c.name for c in CLASSES])
    return "".join(names[late]), "".join(names[run.relegations > 0])


@pytest.mark.parametrize(
    ("name", "late", "relegated"),
    [
        ("sarathi-fcfs", "BCD", ""),  # all wait behind the long prompt of A
        ("sarathi-edf", "BC", ""),  # D first, by deadline; its 256-token chunks leave too little for C and then B
        ("sarathi-srpf", "C", ""),  # the longest of the urgent three waits longest
        ("niyama-dc", "C", ""),  # full chunks save B; D still goes before C
        ("niyama-dc-er", "D", "D"),  # D, of low importance, steps aside for C
        ("niyama", "D", "D"),
    ],
)
def test_who_misses_under_each_policy(name, late, relegated):
    assert missed(load_policy(name)) == (late, relegated)


def test_without_the_hint_the_important_request_loses():
    """Neither made room for nor protected, C is relegated once D has gone first."""
    assert missed(replace(load_policy("niyama"), make_room=False)) == ("C", "C")
