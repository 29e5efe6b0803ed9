"""Running replicas, many in one call: by the addresses of all that they work on, as the plug-in calls the kernel.

From Python a call with all of a replica's arrays takes a fifth of a millisecond, and a fleet makes a million of them.
"""

from __future__ import annotations

import numpy as np
from numba import config, typeof, types

from niyama.jit import compiled, compiled_apart, record
from niyama.jit.layout import kernel_type
from niyama.jit.pointers import layout_of, rebuilt
from niyama.kernel import Kernel
from niyama.latency import LatencyModel
from niyama.latency.model import MODEL_TYPE, empty_batch, seconds, with_prefill
from niyama.policies import Policy
from niyama.sim.learning import Learned, Learning
from niyama.sim.overlapped import Flight, advance_overlapped, new_flight
from niyama.sim.replica import LOG_COLUMNS, Progress, World, advance
from niyama.state import NO_FAULT, State


def _world() -> World:
    """One that has the types of every World."""
    learning = Learning(record(Learned()), np.zeros(1), np.zeros(1, bool), False, False)
    ids, starts, log = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros((1, len(LOG_COLUMNS)))
    return World(
        ids, np.zeros(1), ids, starts, np.zeros(1), np.zeros(1), record(Progress()), log, np.zeros(4), False, learning
    )


_SYNCHRONOUS = _OVERLAPPED = None
if not config.DISABLE_JIT:
    _PARTS = [typeof(_world()), kernel_type(), MODEL_TYPE]
    _SYNCHRONOUS = rebuilt(types.Tuple(_PARTS))
    _OVERLAPPED = rebuilt(types.Tuple([*_PARTS, typeof(new_flight(1, 1))]))

Parts = tuple[World, Kernel, LatencyModel, Flight | None]


def addresses(parts: Parts) -> np.ndarray:
    """Where a replica's parts are; anew when one of its arrays is replaced."""
    return layout_of(parts if parts[3] is not None else parts[:3])


SLICE_ITERATIONS = 2_000_000
RUNNING, CONTEXT, QUEUED, TOKENS, URGENT, PER_TOKEN_S, STEP_S, KV_FREE, SLACK_S = range(9)  # columns of statistics
COLUMNS = 9


def publish(where: np.ndarray, parts: list[Parts], chunk_tokens: np.ndarray, seen: np.ndarray) -> None:
    """Write the statistics of every replica into its row of `seen`, float64[k, COLUMNS].

    chunk_tokens: int64[k]; the chunk that a prompt token's time is predicted for.
    """
    if config.DISABLE_JIT:
        for i, (_, kernel, _, _) in enumerate(parts):
            _statistics(kernel.model, kernel.state.totals, chunk_tokens[i], seen[i])
    elif parts[0][3] is not None:
        _publish_overlapped(where, chunk_tokens, seen)
    else:
        _publish_synchronous(where, chunk_tokens, seen)


@compiled
def _statistics(model, totals, chunk_tokens, seen):
    running, context = totals.running, totals.running_context
    beside = empty_batch(running, context)
    seen[RUNNING], seen[CONTEXT], seen[QUEUED] = running, context, totals.queued
    seen[TOKENS], seen[URGENT] = totals.queued_prefill_tokens, totals.interactive_tokens
    seen[PER_TOKEN_S] = seconds(model, with_prefill(beside, 0, chunk_tokens)) / chunk_tokens
    seen[STEP_S] = seconds(model, empty_batch(running + 1, context))
    seen[KV_FREE] = totals.kv_free_blocks / max(1, totals.kv_total_blocks)
    seen[SLACK_S] = totals.min_slack_s


@compiled_apart
def _publish_synchronous(where, chunk_tokens, seen):
    for i in range(len(where)):
        _, k, _ = _SYNCHRONOUS(where[i])
        _statistics(k.model, k.state.totals, chunk_tokens[i], seen[i])


@compiled_apart
def _publish_overlapped(where, chunk_tokens, seen):
    for i in range(len(where)):
        _, k, _, _ = _OVERLAPPED(where[i])
        _statistics(k.model, k.state.totals, chunk_tokens[i], seen[i])


def run_until(where: np.ndarray, parts: list[Parts], until_s: float, most_iterations: int) -> int:
    """Run every replica of a fleet to that time, or most_iterations at most; where: a row of `addresses` for each.

    All plan ahead, or none. Answers how many were run: fewer than all when one failed, or plans nothing.
    """
    if not config.DISABLE_JIT:
        run = _run_synchronous if parts[0][3] is None else _run_overlapped
        return int(run(where, until_s, most_iterations))
    for i, (world, kernel, executor, flight) in enumerate(parts):
        stop = _begin(world.progress, until_s, most_iterations)
        if flight is None:
            advance(world, kernel, executor, most_iterations)
        else:
            advance_overlapped(world, flight, kernel, executor, most_iterations)
        if _stuck(world, kernel.state, stop):
            return i
    return len(parts)


@compiled
def _begin(progress, until_s, most_iterations):
    """How many iterations there may have been when it stops."""
    progress.until_s = until_s
    return progress.iterations + most_iterations


@compiled
def _stuck(w, s, stop):
    """Whether it stopped for no good reason: a rule failed, or the policy plans nothing although requests wait."""
    p, rows = w.progress, len(w.log)
    done = p.finished == p.sent or p.now_s >= p.until_s or p.iterations >= stop or 0 < rows <= p.logged
    return s.totals.fault != NO_FAULT or not done


@compiled_apart
def _run_synchronous(where, until_s, most_iterations):
    for i in range(len(where)):
        w, k, executor = _SYNCHRONOUS(where[i])
        stop = _begin(w.progress, until_s, most_iterations)
        advance(w, k, executor, most_iterations)
        if _stuck(w, k.state, stop):
            return i
    return len(where)


@compiled_apart
def _run_overlapped(where, until_s, most_iterations):
    for i in range(len(where)):
        w, k, executor, f = _OVERLAPPED(where[i])
        stop = _begin(w.progress, until_s, most_iterations)
        advance_overlapped(w, f, k, executor, most_iterations)
        if _stuck(w, k.state, stop):
            return i
    return len(where)


def stall(policy: Policy, now_s: float, state: State) -> ValueError:
    """The error of a policy that lets requests wait for nothing."""
    return ValueError(
        f"policy {policy.name!r} plans nothing at {now_s} s: {state.totals['queued']} requests "
        "wait and none decodes; its prefill_budget must then be at least 1 token"
    )
