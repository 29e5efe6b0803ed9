"""A fleet on one clock: requests are routed as they arrive, by a rule that sees the replicas (`niyama.sim.routers`).

Time goes by in periods as long as the router's statistics are old. Before each, every replica runs up to its start and
publishes; requests that arrive in a period are routed by what was published one period before, which no real router
would get later, and by what was sent since. Within a period replicas need nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from niyama.jit import compiled, compiled_apart
from niyama.latency import LatencyModel
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.own_rules import RuleError, source_of
from niyama.sim.fleet import Fleet
from niyama.sim.requests import Requests
from niyama.sim.routers import Arriving, Router, Seen
from niyama.sim.stepping import CONTEXT, KV_FREE, PER_TOKEN_S, QUEUED, RUNNING, SLACK_S, STEP_S, TOKENS, URGENT

BESIDE_TOKENS = 256  # a prompt is predicted to take at least as long as that many of its tokens beside the decodes


class Known(NamedTuple):
    """What the router knows of n requests, a column each, and in which pool each is to be served."""

    prompt_tokens: np.ndarray  # int64[n]
    interactive: np.ndarray  # bool[n]
    slo_s: np.ndarray  # float64[n]
    tbt_s: np.ndarray  # float64[n]
    important: np.ndarray  # bool[n]
    first: np.ndarray  # int64[n]; the first replica of its pool
    count: np.ndarray  # int64[n]; and how many it has
    guess: np.ndarray  # float64[n]; of the output's length, by the pool's policy


class Books(NamedTuple):
    """What the router has sent to each of k replicas: since the start, in this period and in the one before."""

    sent: np.ndarray  # int64[k]
    requests: np.ndarray  # int64[2, k]
    tokens: np.ndarray  # int64[2, k]; of prompts
    urgent: np.ndarray  # int64[2, k]; of interactive prompts
    turn: np.ndarray  # int64[k]; by the first replica of a pool: the one that was chosen last
    mean_prompt: np.ndarray  # float64[2]; of all prompts so far: their number and their mean


def new_books(replicas: int) -> Books:
    """Nothing sent."""
    two = [np.zeros((2, replicas), np.int64) for _ in range(3)]
    return Books(np.zeros(replicas, np.int64), *two, np.full(replicas, -1, np.int64), np.zeros(2))


def known(requests: Requests, first: np.ndarray, count: np.ndarray, guess: np.ndarray) -> Known:
    """Of all requests; first, count, guess: by request."""
    classes, index = requests.classes, requests.class_index
    return Known(
        requests.prompt_tokens.astype(np.int64),
        np.array([c.interactive for c in classes])[index],
        np.array([c.deadline_slo_s for c in classes], float)[index],
        np.array([c.tbt_s or 0.0 for c in classes], float)[index],
        np.ascontiguousarray(requests.important, bool),
        first.astype(np.int64),
        count.astype(np.int64),
        guess.astype(float),
    )


@compiled
def _mixed(a, b, c):
    """A number in [0, 1) that looks random, of three whole ones."""
    x = np.uint64(a * 0x9E3779B1 + b * 0x85EBCA77 + c * 0xC2B2AE3D + 1)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return np.float64(x >> np.uint64(11)) / 9007199254740992.0


@compiled
def _drawn(r, first, count, seed):
    """Two replicas of the pool at random, by their places in it; the same one where it has but one."""
    a = int(_mixed(r, 0, seed) * count)
    if count == 1:
        return a, a
    b = int(_mixed(r, 1, seed) * (count - 1))
    return a, b + (1 if b >= a else 0)


@compiled
def see(seen, books, known, model, r, i, draw):
    """What the router knows of the i-th replica of request r's pool."""
    k = known.first[r] + i
    row = seen[k]
    booked = books.tokens[0, k] + books.tokens[1, k]
    urgent = books.urgent[0, k] + books.urgent[1, k]
    there = books.requests[0, k] + books.requests[1, k]
    prompt = known.prompt_tokens[r]
    ahead = row[URGENT] + urgent if known.interactive[r] else row[TOKENS] + booked
    backlog = row[QUEUED] * books.mean_prompt[1] + booked
    beside = empty_batch(int(row[RUNNING]), int(row[CONTEXT]))
    prefill_s = max(prompt * row[PER_TOKEN_S], seconds(model, with_prefill(beside, 0, min(prompt, BESIDE_TOKENS))))
    lot = 0 if i == draw[0] else 1 if i == draw[1] else 2
    return Seen(
        np.int64(i), known.count[r], books.sent[k], np.int64(row[RUNNING] + row[QUEUED]) + there,
        (row[TOKENS] + booked) * row[PER_TOKEN_S], backlog * row[PER_TOKEN_S], ahead * row[PER_TOKEN_S], prefill_s,
        row[STEP_S],        row[KV_FREE], row[SLACK_S], np.int64(lot),
    )  # fmt: skip


@compiled
def arriving(known, r):
    """The request as the router knows it."""
    return Arriving(
        known.prompt_tokens[r], known.interactive[r], known.slo_s[r], known.tbt_s[r], known.important[r], known.guess[r]
    )


@compiled_apart
def choose(known, books, seen, model, cost, seed, start, stop, replica):
    """Route requests start .. stop - 1 into `replica`; answers the first for which the rule failed, or `stop`."""
    for r in range(start, stop):
        request, draw = arriving(known, r), _drawn(r, known.first[r], known.count[r], seed)
        n, first = known.count[r], known.first[r]
        best, least = -1, 0.0
        for turn in range(n):
            i = (books.turn[first] + 1 + turn) % n  # equal costs take turns
            value = cost(request, see(seen, books, known, model, r, i, draw))
            if not np.isfinite(value):
                return r
            if best < 0 or value < least:
                best, least = i, value
        k = first + best
        replica[r], books.turn[first] = k, best
        books.sent[k] += 1
        books.requests[1, k] += 1
        books.tokens[1, k] += known.prompt_tokens[r]
        books.mean_prompt[0] += 1.0
        books.mean_prompt[1] += (known.prompt_tokens[r] - books.mean_prompt[1]) / books.mean_prompt[0]
        if known.interactive[r]:
            books.urgent[1, k] += known.prompt_tokens[r]
    return stop


def route_live(
    router: Router, fleet: Fleet, requests: Requests, known: Known, model: LatencyModel, seed: int, replica: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Serve all requests to the end; `replica` is filled in. Yields (replica, slice of its iteration log).

    Raises RuleError where the router's rule fails, and ValueError as a simulation of one replica does.
    """
    period_s, arrival_s, n, row = router.stats_age_s, requests.arrival_s, len(requests), 0
    books, last = new_books(len(fleet.replicas)), -1
    while row < n:
        period = int(arrival_s[row] // period_s)
        for this in range(max(last + 1, period - 1), period + 1):  # where nobody came for a while, two are enough
            yield from fleet.run(this * period_s)
            for booked in (books.requests, books.tokens, books.urgent):
                booked[0], booked[1] = booked[1].copy(), 0
        last = period
        stop = max(row + 1, int(np.searchsorted(arrival_s, (period + 1) * period_s, side="left")))
        failed = choose(known, books, fleet.seen[0], model, router.cost, seed, row, stop, replica)
        if failed < stop:
            raise _failure(router, known, failed)
        fleet.send(row, replica[row:stop])
        row = stop
    yield from fleet.run(np.inf)


def _failure(router: Router, known: Known, row: int) -> RuleError:
    """Why the rule has no cost for a request, with where it is written."""
    rule = source_of(router.cost)
    where = f"{rule.__code__.co_filename}, line {rule.__code__.co_firstlineno}"
    request = Arriving(*(getattr(known, name)[row].item() for name in Arriving._fields[:-1]), known.guess[row].item())
    return RuleError(
        f"{where}: router {router.name!r} has no finite cost for {request}; it must return a finite number for every "
        "replica"
    )
