"""Each router against an example worked out by hand, and a user's router with what may be wrong with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from artifact.__main__ import main
from artifact.runs.systems import router
from niyama import BUILT_IN, PAPER_CLASSES, load_card
from niyama.own_rules import RuleError
from niyama.sim import ROUTERS, Arriving, Requests, Router, Seen, route_rule, shared, simulate

CHAT = Arriving(1000, True, 6.0, 0.05, True, 100.0)
BATCH = Arriving(1000, False, 600.0, 0.0, True, 100.0)
#           index, of, sent, requests, work, backlog, ahead, prefill, step, KV free, slack, lot
IDLE = Seen(0, 3, 9, 0, 0.0, 0.0, 0.0, 0.10, 0.020, 1.0, np.inf, 2)
BUSY = Seen(1, 3, 5, 30, 4.0, 9.0, 1.0, 0.15, 0.040, 0.5, 0.2, 1)
FULL = Seen(2, 3, 7, 20, 2.0, 2.0, 2.0, 0.30, 0.060, 0.1, 0.0, 0)


def cost(name, request, replica):
    return ROUTERS[name].cost(request, replica)


@pytest.mark.parametrize(
    "name, request_, costs",
    [
        ("live-round-robin", CHAT, (9, 5, 7)),
        ("least-requests", CHAT, (0, 30, 20)),
        ("live-least-work", CHAT, (0.0, 4.0, 2.0)),
        ("power-of-two", CHAT, (1e9, 30, 20)),
        ("llumnix", CHAT, (0.4, 0.8, 1.2)),  # 0.02, 0.04 and 0.06 s a step of 0.05 s; TTFT 0.017, 0.69 and 0.38 of 6 s
        ("llumnix", BATCH, (0.1 / 600, 4.15 / 600, 2.3 / 600)),
        ("xllm", CHAT, (0, 1e9 + 9.0, 1e9 + 2.0)),  # BUSY: 9.15 s of 6; FULL: a step too long
        ("xllm", BATCH, (0, 1, 2)),
        ("slack", CHAT, (0.1, 1.15, 2.3)),
        ("slack", BATCH, (0.1 + 2.0, 1.15 + 4.0, 2.3 + 6.0)),
        ("slack-pack", CHAT, (0, 1e9 + 1.15, 1e9 + 2.3)),  # BUSY: 9.15 s of 3; FULL: 2.3, but a step too long
        ("slack-pack", BATCH, (0, -30, -20)),  # all within 300 s
    ],
)
def test_a_cost_is_what_its_rule_says(name, request_, costs):
    assert [cost(name, request_, replica) for replica in (IDLE, BUSY, FULL)] == pytest.approx(costs)


def test_what_a_router_sees_is_what_was_sent_and_what_replicas_said():
    """Three requests at once and one a second later, on two replicas: the third goes where the shorter prompt went."""
    requests = Requests(
        PAPER_CLASSES[:1], np.zeros(4, int), np.array([0.1, 0.1, 0.1, 60.0]), np.array([4000, 500, 500, 500]),
        np.array([4, 4, 4, 4]), np.ones(4, bool),
    )  # fmt: skip
    card = load_card("a100-llama3-8b-linear")
    run = simulate(shared(BUILT_IN["niyama"], 2, ROUTERS["slack"]), requests, card, card)
    assert run.replica.tolist() == [0, 1, 1, 0]  # after a minute both are idle, and it is the turn of the first


OWN = """
from niyama.sim import Router, route_rule


@route_rule
def mine(request, replica):
    return {cost}


short_first = Router("short-first", mine, stats_age_s={age})
"""


def test_a_router_of_ones_own_routes(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN.format(cost="replica.index if request.important else 0.0", age=1.0))
    routing = f"{tmp_path / 'own.py'}:short_first"
    assert router(routing).stats_age_s == 1.0
    options = ["--trace", "azure-code-2023-synth", "--system", "niyama", "--load", "6", "--requests", "60"]
    assert main(["simulate", *options, "--replicas", "2", "--routing", routing, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["changed"]["routing"] == routing and answer["replicas"] == 2


@pytest.mark.parametrize(
    "content, words",
    [
        (OWN.format(cost="replica.speed", age=1.0), "speed"),
        (OWN.format(cost="'a'", age=1.0), "return a number"),
        (OWN.format(cost="0.0", age=0.0), "stats_age_s is 0.0"),
        ("short_first = 3\n", "must be a niyama Router"),
    ],
)
def test_a_router_that_makes_no_sense_is_one_line(tmp_path, capsys, content, words):
    (tmp_path / "own.py").write_text(content)
    options = ["--trace", "azure-code-2023-synth", "--system", "niyama", "--load", "6", "--requests", "9"]
    assert main(["simulate", *options, "--routing", f"{tmp_path / 'own.py'}:short_first"]) == 2
    text = capsys.readouterr().err
    assert words in text and text.strip().count("\n") == 0


def test_a_router_that_has_no_cost_stops_the_run_with_file_and_line(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN.format(cost="1.0 / (replica.sent - replica.sent)", age=1.0))
    options = ["--trace", "azure-code-2023-synth", "--system", "niyama", "--load", "6", "--requests", "9"]
    assert main(["simulate", *options, "--routing", f"{tmp_path / 'own.py'}:short_first"]) == 2
    text = capsys.readouterr().err
    assert "own.py, line" in text and "no finite cost" in text


def test_an_unknown_routing_is_told_the_names(capsys):
    options = ["--trace", "azure-code-2023-synth", "--system", "niyama", "--load", "6", "--requests", "9"]
    assert main(["simulate", *options, "--routing", "slak"]) == 2
    assert "slack" in capsys.readouterr().err


def test_a_plain_function_is_no_router():
    with pytest.raises(ValueError, match="route_rule"):
        Router("mine", lambda request, replica: 0.0)
    with pytest.raises(RuleError, match="brackets"):
        route_rule()
