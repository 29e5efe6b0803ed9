"""Simulate a system on a list of requests: route, run every replica, gather raw times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numba.core.config import DISABLE_JIT

from niyama.faults import refuse_fault, rule_error
from niyama.kernel import Kernel
from niyama.latency import ModelCard
from niyama.policies import Policy
from niyama.qos import MOST_DELIVERY_S
from niyama.requests import RequestTable
from niyama.sim.fleet import FIRST_QUEUE, Fleet, Replica
from niyama.sim.learning import nothing_learned
from niyama.sim.live import known, route_live
from niyama.sim.noise import Noise, as_noise
from niyama.sim.overlapped import new_flight
from niyama.sim.replica import LOG_COLUMNS, World
from niyama.sim.requests import Requests, delivered
from niyama.sim.routers import Router
from niyama.sim.set_up import set_up
from niyama.sim.stepping import SLICE_ITERATIONS, Parts, addresses, run_until, stall
from niyama.sim.system import System, route
from niyama.state import KV_BLOCK_TOKENS, State

SEED_STRIDE = 1009  # noise streams of one seed; more than a system has replicas


@dataclass(frozen=True)
class Run:
    """Raw times of a simulated run of n requests, in request order, in seconds; nothing derived.

    replica, relegations, preemptions: int32[n]; first_scheduled_s: float64[n]; still_relegated: bool[n], at its end.
    token_s: float64[sum of outputs]; request r owns token_s[token_start[r]:token_start[r + 1]].
    log: per iteration, columns LOG_COLUMNS plus the replica in front; empty unless asked for.
    """

    replica: np.ndarray
    first_scheduled_s: np.ndarray
    token_start: np.ndarray
    token_s: np.ndarray
    relegations: np.ndarray
    still_relegated: np.ndarray
    preemptions: np.ndarray
    iterations: int
    un_relegations: int
    log: np.ndarray


def simulate(
    system: System,
    requests: Requests,
    executor: ModelCard,
    predictor: ModelCard,
    *,
    noise: float | Noise = 0.0,
    seed: int = 0,
    log: bool = False,
    overlapped: bool = False,
    started_first: bool = False,
    correct: bool = False,
    delivery_s: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Run `requests` through `system` to the end.

    executor, predictor: latency model cards; each replica gets its own instances. noise: of step times
    (`niyama.sim.noise`), a number for its sigma alone. overlapped: plan while the iteration before is in flight
    (`niyama.sim.overlapped`). started_first: run prompts in KV before new ones, as vLLM does (and overlapped): one
    latency model cares. correct: stretch the predictor by what its steps have taken so far, as the vLLM plug-in does.
    delivery_s: tokens take that long to the client, and the scheduler meets deadlines that much earlier.
    progress: called now and then with the number of requests finished so far.
    Raises ValueError for requests that cannot be served, for classes without a pool, for a policy that stalls
    and, as RuleError, for a rule that fails.
    """
    noise = as_noise(noise)
    kv_tokens, served = check_run(requests, executor, delivery_s), requests
    requests = delivered(requests, delivery_s)
    if isinstance(system.routing, Router):
        found = _simulate_live(
            system,
            requests,
            kv_tokens,
            executor,
            predictor,
            noise,
            seed,
            log,
            overlapped,
            started_first,
            correct,
            progress,
        )
        if served is not requests:
            found.token_s[found.token_s > 0] += delivery_s
        return found
    columns = requests.class_index, requests.arrival_s, requests.prompt_tokens
    replica = route(system, requests.classes, *columns, predictor)
    run, logs, iterations, un_relegations, done = blank_run(requests, replica), [], 0, 0, 0
    for k, policy in enumerate(pool.policy for pool in system.pools for _ in range(pool.replicas)):
        rows, stream = np.flatnonzero(replica == k), seed * SEED_STRIDE + k
        world, table, state = set_up(
            requests, rows, run.token_start, run.token_s, policy, kv_tokens, noise.numbers(stream), log, started_first,
            nothing_learned(predictor, bool(noise) or predictor != executor, correct),
        )  # fmt: skip
        for chunk in _run_replica(world, state, table, policy, predictor, executor, overlapped):
            logs.append(np.column_stack([np.full(len(chunk), float(k)), chunk]))
            if progress is not None:
                progress(done + int(world.progress["finished"]))
        run.first_scheduled_s[rows] = world.first_scheduled_s
        run.relegations[rows], run.still_relegated[rows] = table.relegations, table.relegated
        run.preemptions[rows] = table.preemptions
        done += len(rows)
        iterations += int(world.progress["iterations"])
        un_relegations += int(state.totals["un_relegations"])
    if served is not requests:
        run.token_s[run.token_s > 0] += delivery_s
    return replace(run, iterations=iterations, un_relegations=un_relegations, log=np.concatenate([run.log, *logs]))


def _simulate_live(
    system: System,
    requests: Requests,
    kv_tokens: int,
    executor: ModelCard,
    predictor: ModelCard,
    noise: Noise,
    seed: int,
    log: bool,
    overlapped: bool,
    started_first: bool,
    correct: bool,
    progress: Callable[[int], None] | None,
) -> Run:
    """`simulate` where a router sees the replicas; all of them share one request table."""
    assert isinstance(system.routing, Router)
    n, run = len(requests), blank_run(requests, np.full(len(requests), -1, np.int32))
    policies = [pool.policy for pool in system.pools for _ in range(pool.replicas)]
    replicas: list[Replica] = []
    table, logs = None, [run.log]
    for k, policy in enumerate(policies):
        numbers = noise.numbers(seed * SEED_STRIDE + k)
        world, own, state = set_up(
            requests, np.arange(n), run.token_start, run.token_s, policy, kv_tokens, numbers, log, started_first,
            nothing_learned(predictor, bool(noise) or predictor != executor, correct),
            table=table, room=min(n, FIRST_QUEUE),
        )  # fmt: skip
        table = own
        world = world._replace(order=np.zeros(64, np.int32), first_scheduled_s=run.first_scheduled_s)
        world.progress["sent"] = 0
        kernel = Kernel(state, table, policy.params(), policy.rules(), predictor.build())
        flight = new_flight(n, policy.max_running) if overlapped else None
        replicas.append(Replica(world, kernel, policy, executor.build(), flight, min(n, FIRST_QUEUE)))
    pools = np.array([system.pool_of(c.name) for c in requests.classes])[requests.class_index]
    sizes = np.array([pool.replicas for pool in system.pools])
    guesses = np.array([pool.policy.estimator_prior for pool in system.pools])
    facts = known(requests, (np.cumsum(sizes) - sizes)[pools], sizes[pools], guesses[pools])
    fleet = Fleet(replicas)
    for k, chunk in route_live(system.routing, fleet, requests, facts, predictor.build(), seed, run.replica):
        if len(chunk):
            logs.append(np.column_stack([np.full(len(chunk), float(k)), chunk]))
        if progress is not None:
            progress(fleet.finished)
    assert table is not None
    run.relegations[:], run.still_relegated[:] = table.relegations[:n], table.relegated[:n]
    run.preemptions[:] = table.preemptions[:n]
    iterations = sum(int(one.world.progress["iterations"]) for one in fleet.replicas)
    returned = sum(int(one.kernel.state.totals["un_relegations"]) for one in fleet.replicas)
    return replace(run, iterations=iterations, un_relegations=returned, log=np.concatenate(logs))


def check_run(requests: Requests, executor: ModelCard, delivery_s: float = 0.0) -> int:
    """Tokens of KV of a replica, in whole blocks; ValueError when the run makes no sense."""
    kv_tokens = executor.kv_tokens // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS
    requests.check(kv_tokens)
    if not 0 <= delivery_s <= MOST_DELIVERY_S:
        raise ValueError(f"delivery_s is {delivery_s}; it must be 0 to {MOST_DELIVERY_S:g} seconds")
    return kv_tokens


def blank_run(requests: Requests, replica: np.ndarray) -> Run:
    """A run of which only the routing and the place of each token are known."""
    n = len(requests)
    start = np.concatenate([[0], np.cumsum(requests.output_tokens, dtype=np.int64)])
    relegations, preemptions = np.zeros(n, np.int32), np.zeros(n, np.int32)
    tokens, log = np.zeros(start[-1]), np.zeros((0, 1 + len(LOG_COLUMNS)))
    return Run(replica, np.full(n, np.nan), start, tokens, relegations, np.zeros(n, bool), preemptions, 0, 0, log)


def _run_replica(
    world: World,
    state: State,
    table: RequestTable,
    policy: Policy,
    predictor: ModelCard,
    executor: ModelCard,
    overlapped: bool,
) -> Iterator[np.ndarray]:
    """Yield the iteration log slice by slice to the end; ValueError when the policy stalls or a rule of it fails."""
    kernel = Kernel(state, table, policy.params(), policy.rules(), predictor.build())
    flight = new_flight(len(world.arrival_s), policy.max_running) if overlapped else None
    parts: Parts = world, kernel, executor.build(), flight
    where = np.zeros((1, 0), np.int64) if DISABLE_JIT else addresses(parts)[np.newaxis]
    while world.progress["finished"] < len(world.arrival_s):
        try:
            done = run_until(where, [parts], np.inf, SLICE_ITERATIONS)
        except Exception as error:
            raise rule_error(policy, error) from error
        refuse_fault(policy, state, kernel.model)
        if done == 0:
            raise stall(policy, world.progress["now_s"], state)
        yield world.log[: world.progress["logged"]].copy()
        world.progress["logged"] = 0
