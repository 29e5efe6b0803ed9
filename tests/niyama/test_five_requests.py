"""Five requests A to E on one replica, as in the paper's Fig 6 but our own: what each policy saves and loses.

A: batch, 10,000 tokens of prompt. B, C, D: interactive. E: batch. D alone is of low importance. Full chunks take
0.24 s; C and D are both feasible when they arrive, but not both.
"""

from dataclasses import replace

import numpy as np
import pytest
from plain import ROOFLINE

from niyama import QoSClass, load_policy
from niyama.sim import Requests, shared, simulate


def chat(name, ttft_s):
    return QoSClass(name, ttft_s=ttft_s, tbt_s=10.0)


CLASSES = (
    QoSClass("A", ttlt_s=30.0),
    chat("B", 0.90),
    chat("C", 0.65),
    chat("D", 0.54),
    QoSClass("E", ttlt_s=20.0),
)
REQUESTS = Requests(
    CLASSES,
    np.arange(5),
    arrival_s=np.array([0.0, 0.0, 0.1, 0.2, 0.3]),
    prompt_tokens=np.array([10_000, 1500, 3000, 2600, 500]),
    output_tokens=np.array([20, 5, 5, 5, 50]),
    important=np.array([True, True, True, False, True]),
)
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
