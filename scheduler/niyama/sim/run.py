"""Simulate a system on a list of requests: route, run every replica, gather raw times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from niyama.faults import refuse_fault, rule_error
from niyama.jit import record
from niyama.kernel import Kernel
from niyama.latency import ModelCard
from niyama.policies import Policy
from niyama.qos import MOST_DELIVERY_S
from niyama.requests import RequestTable, fill, hand_over, new_table
from niyama.sim.learning import Learning, nothing_learned
from niyama.sim.noise import Noise, as_noise
from niyama.sim.overlapped import advance_overlapped, new_flight
from niyama.sim.replica import LOG_COLUMNS, Progress, World, advance
from niyama.sim.requests import Requests, delivered
from niyama.sim.system import System, route
from niyama.state import KV_BLOCK_TOKENS, State, new_state

ORACLE_ESTIMATOR = "oracle"
SLICE_ITERATIONS = 2_000_000
LOG_ROWS = 65_536
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
    columns = requests.class_index, requests.arrival_s, requests.prompt_tokens
    replica = route(system, requests.classes, *columns, predictor)
    run, logs, iterations, un_relegations, done = blank_run(requests, replica), [], 0, 0, 0
    for k, policy in enumerate(pool.policy for pool in system.pools for _ in range(pool.replicas)):
        rows, stream = np.flatnonzero(replica == k), seed * SEED_STRIDE + k
        world, table, state = _set_up(
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


def _set_up(
    requests: Requests,
    rows: np.ndarray,
    start: np.ndarray,
    token_s: np.ndarray,
    policy: Policy,
    kv_tokens: int,
    noise: np.ndarray,
    log: bool,
    started_first: bool,
    learning: Learning,
) -> tuple[World, RequestTable, State]:
    """The engine's world, the request table and the scheduler's state of one replica that serves `rows`."""
    table, outputs = _filled_table(requests, rows), requests.output_tokens[rows].astype(np.int32)
    if policy.estimator == ORACLE_ESTIMATOR:
        table.decode_estimate[:] = outputs
    apps = int(table.app.max(initial=0)) + 1
    tenants = requests.tenants
    state = new_state(len(rows), policy.max_running, apps, kv_tokens, policy.alpha_low, tenants=tenants)
    world = World(
        requests.arrival_s[rows].astype(np.float64),
        outputs,
        start[rows],
        token_s,
        np.full(len(rows), np.nan),
        record(Progress()),
        np.zeros((LOG_ROWS if log else 0, len(LOG_COLUMNS))),
        noise,
        started_first,
        learning,
    )
    return world, table, state


def _filled_table(requests: Requests, rows: np.ndarray) -> RequestTable:
    """A request table that holds `rows` of the requests, all still to arrive."""
    table, classes, index = new_table(len(rows)), requests.classes, requests.class_index[rows]
    fill(
        table,
        arrival_s=requests.arrival_s[rows],
        prompt_tokens=requests.prompt_tokens[rows],
        deadline_slo_s=np.array([c.deadline_slo_s for c in classes])[index],
        tbt_s=np.array([c.tbt_s or 0.0 for c in classes])[index],
        interactive=np.array([c.interactive for c in classes])[index],
        important=requests.important[rows],
        app=requests.histories[rows],
        tenant=0 if requests.tenant is None else requests.tenant[rows],
    )
    if requests.emitted_tokens is not None:
        hand_over(table, requests.emitted_tokens[rows])
    return table


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
    model = executor.build()
    flight = (new_flight(len(world.arrival_s), policy.max_running),) if overlapped else ()
    step = advance_overlapped if overlapped else advance
    while world.progress["finished"] < len(world.arrival_s):
        before = world.progress["iterations"]
        try:
            step(world, *flight, kernel, model, SLICE_ITERATIONS)
        except Exception as error:
            raise rule_error(policy, error) from error
        refuse_fault(policy, state, kernel.model)
        if world.progress["iterations"] == before:
            raise stall(policy, world.progress["now_s"], state)
        yield world.log[: world.progress["logged"]].copy()
        world.progress["logged"] = 0


def stall(policy: Policy, now_s: float, state: State) -> ValueError:
    """The error of a policy that lets requests wait for nothing."""
    return ValueError(
        f"policy {policy.name!r} plans nothing at {now_s} s: {state.totals['queued']} requests "
        "wait and none decodes; its prefill_budget must then be at least 1 token"
    )
