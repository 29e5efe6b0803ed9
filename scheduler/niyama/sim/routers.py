"""Routers that see the fleet: a rule that gives each replica a cost for an arriving request; the least cost gets it.

    @route_rule    def f(request, replica)    a number, lower is better: `Arriving`, `Seen`

What a rule is told is what a real router can see: its own bookings, and statistics of the replicas that are as old as
it is said. No output length is among it, but for a guess. Equal costs take turns. Built in, with source:

- least-requests, least-work: fewest requests; least prompt work.
- power-of-two: the one with fewer requests of two drawn at random (Mitzenmacher 2001; Ray Serve's default).
- llumnix: after Llumnix v1's SLO dispatch: the least of predicted TTFT over its SLO and predicted TPOT over its SLO.
- xllm: after xllm-service's: the first replica predicted to keep TPOT and TTFT, else the one with the least queue.
- slack: where this request's first token, or its prefill, is predicted to be done with most to spare.
- slack-pack: the fullest replica that still meets the deadline with SPARE of it to spare, else as slack.

Llumnix's thresholds and its migrations, and xllm's reserves and role changes, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import types

from niyama.jit import tuple_type
from niyama.own_rules import RuleKind, rule_decorator, why_no_rule

SPARE = 0.5  # of the deadline: what slack-pack leaves for what it cannot see
LAST = 1e9  # more than any cost within a preference


class Arriving(NamedTuple):
    """What a router knows of an arriving request. Seconds and tokens."""

    prompt_tokens: int
    interactive: bool
    slo_s: float  # TTFT, or TTLT of a batch request
    tbt_s: float  # 0 for a batch request
    important: bool
    output_guess: float  # the policy's guess of an output length; the true one is nobody's to know


class Seen(NamedTuple):
    """What a router knows of a replica: statistics of some age, what it has sent since, predictions from both."""

    index: int  # in the request's pool, from 0
    replicas: int  # of the pool
    sent: int  # requests, since the start
    requests: int  # there: by the statistics, and sent since
    work_s: float  # prefill of all prompts there that are not relegated
    backlog_s: float  # the same of all that waits there, relegated or not, as if prompts were of the mean length
    ahead_s: float  # of those that go before this request: of interactive ones, if it is one
    prefill_s: float  # of this prompt, beside the decodes there
    step_s: float  # predicted: all decodes, and this request's
    kv_free: float  # share of the KV that is neither held nor reserved
    slack_s: float  # least time to a decode's next deadline
    lot: int  # place of the replica in an order drawn for this request, from 0


ARRIVING_TYPE, SEEN_TYPE = tuple_type(Arriving), tuple_type(Seen)
_COST = types.float64(ARRIVING_TYPE, SEEN_TYPE)
route_rule = rule_decorator(RuleKind("cost", _COST, {"request": Arriving, "replica": Seen}, "float(value)", np.nan))


@dataclass(frozen=True)
class Router:
    """A named cost, and how old the statistics are that it sees."""

    name: str
    cost: object
    stats_age_s: float = 0.5

    def __post_init__(self) -> None:
        if problem := why_no_rule(self.cost, "cost"):
            raise ValueError(f"router {self.name!r}: {problem}")
        if not 0.001 <= self.stats_age_s <= 60.0:
            raise ValueError(f"router {self.name!r}: stats_age_s is {self.stats_age_s}; it must be 0.001 to 60 seconds")


@route_rule
def in_turn(request, replica):
    """Who was sent fewest."""
    return replica.sent


@route_rule
def fewest_requests(request, replica):
    """Who has fewest requests."""
    return replica.requests


@route_rule
def least_work(request, replica):
    """Who has least prompt work."""
    return replica.work_s


@route_rule
def power_of_two(request, replica):
    """Who has fewer requests of two drawn."""
    return replica.requests if replica.lot < 2 else LAST


@route_rule
def llumnix(request, replica):
    """The nearer of both SLOs."""
    ttft = (replica.work_s + replica.prefill_s) / request.slo_s
    return max(ttft, replica.step_s / request.tbt_s) if request.interactive else ttft


@route_rule
def first_fit(request, replica):
    """The first that keeps both SLOs, else the shortest queue."""
    keeps = replica.backlog_s + replica.prefill_s <= request.slo_s
    if request.interactive:
        keeps = keeps and replica.step_s <= request.tbt_s
    return replica.index if keeps else LAST + replica.backlog_s


@route_rule
def most_slack(request, replica):
    """When the prompt would be prefilled, behind what goes before it; a batch request also decodes."""
    done_s = replica.ahead_s + replica.prefill_s
    return done_s if request.interactive else done_s + request.output_guess * replica.step_s


@route_rule
def fullest_in_time(request, replica):
    """The most that waits, where even all of that before this request would leave its deadline half."""
    done_s = replica.backlog_s + replica.prefill_s
    if not request.interactive:
        done_s += request.output_guess * replica.step_s
    in_time = done_s <= (1.0 - SPARE) * request.slo_s
    if request.interactive:
        in_time = in_time and replica.step_s <= request.tbt_s
    ahead_s = replica.ahead_s + replica.prefill_s
    return -replica.requests if in_time else LAST + ahead_s


LIVE_ROUND_ROBIN = Router("live-round-robin", in_turn)
ROUTERS = {
    router.name: router
    for router in (
        LIVE_ROUND_ROBIN,
        Router("least-requests", fewest_requests),
        Router("power-of-two", power_of_two),
        Router("llumnix", llumnix),
        Router("xllm", first_fit),
        Router("slack", most_slack),
        Router("slack-pack", fullest_in_time),
        Router("live-least-work", least_work),
    )
}
