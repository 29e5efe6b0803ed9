"""Simulate a system on a list of requests: route, run every replica, gather raw times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from niyama.latency import ModelCard
from niyama.policies import Policy
from niyama.qos import QoSClass
from niyama.requests import RequestTable, fill, new_table
from niyama.scheduler import KV_BLOCK_TOKENS, UN_RELEGATIONS, Scheduler, new_scheduler
from niyama.sim.replica import FINISHED, ITERATIONS, LOG_COLUMNS, LOGGED, World, advance
from niyama.sim.system import System, route

ORACLE_ESTIMATOR = "oracle"
SLICE_ITERATIONS = 2_000_000
LOG_ROWS = 65_536


@dataclass(frozen=True)
class Requests:
    """n requests sorted by arrival. Times in seconds, lengths in tokens; `class_index` points into `classes`.

    `output_tokens` is the truth: the simulator ends requests by it and shows it to no policy.
    `app` says whose output-length history applies (default: the class).
    """

    classes: tuple[QoSClass, ...]
    class_index: np.ndarray
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    important: np.ndarray
    app: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def check(self, kv_tokens: int) -> None:
        """ValueError naming the first row that cannot be served at all."""
        for column, bad, wanted in (
            ("output_tokens", self.output_tokens < 1, "at least 1"),
            ("prompt_tokens", self.prompt_tokens < 1, "at least 1"),
            ("arrival_s", ~np.isfinite(self.arrival_s), "a finite number of seconds"),
            ("arrival_s", np.diff(self.arrival_s, prepend=-np.inf) < 0, "not before the one above it; sort the rows"),
        ):
            if np.any(bad):
                row = int(np.argmax(bad))
                raise ValueError(f"request {row}: {column} is {getattr(self, column)[row]}; it must be {wanted}")
        total = self.prompt_tokens.astype(np.int64) + self.output_tokens
        if len(total) and total.max() > kv_tokens:
            row = int(np.argmax(total > kv_tokens))
            raise ValueError(
                f"request {row}: prompt_tokens + output_tokens is {total[row]}, more than the KV cache holds "
                f"({kv_tokens} tokens); drop such requests or use a replica with more KV"
            )


@dataclass(frozen=True)
class Run:
    """Raw times of a simulated run, in request order; nothing derived.

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
    noise: float = 0.0,
    seed: int = 0,
    log: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Run `requests` through `system` to the end.

    executor, predictor: latency model cards; each replica gets its own instances. noise: standard deviation of the
    log of step times. progress: called now and then with the number of requests finished so far.
    Raises ValueError for requests that cannot be served and for classes without a pool.
    """
    kv_tokens = executor.kv_tokens // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS
    requests.check(kv_tokens)
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is {noise}; it must be finite and not negative")
    names = tuple(c.name for c in requests.classes)
    index, arrival_s = requests.class_index, requests.arrival_s
    replica = route(system, names, index, arrival_s, requests.prompt_tokens, predictor)
    n = len(requests)
    start = np.concatenate([[0], np.cumsum(requests.output_tokens, dtype=np.int64)])
    first = np.full(n, np.nan)
    token_s = np.zeros(start[-1])
    columns = {name: np.zeros(n, np.int32) for name in ("relegations", "relegated", "preemptions")}
    iterations = un_relegations = done = 0
    logs = [np.zeros((0, 1 + len(LOG_COLUMNS)))]
    policies = [pool.policy for pool in system.pools for _ in range(pool.replicas)]
    for k, policy in enumerate(policies):
        rows = np.flatnonzero(replica == k)
        world, table, scheduler = _set_up(requests, rows, start, token_s, policy, kv_tokens, noise, seed + k, log)
        for chunk in _run_replica(world, scheduler, table, policy, predictor, executor):
            logs.append(np.column_stack([np.full(len(chunk), float(k)), chunk]))
            if progress is not None:
                progress(done + int(world.progress[FINISHED]))
        first[rows] = world.first_scheduled_s
        for name, column in columns.items():
            column[rows] = getattr(table, name)[: len(rows)]
        done += len(rows)
        iterations += int(world.progress[ITERATIONS])
        un_relegations += int(scheduler.count[UN_RELEGATIONS])
    return Run(
        replica,
        first,
        start,
        token_s,
        columns["relegations"],
        columns["relegated"].astype(bool),
        columns["preemptions"],
        iterations,
        un_relegations,
        np.concatenate(logs),
    )


def _set_up(
    requests: Requests,
    rows: np.ndarray,
    start: np.ndarray,
    token_s: np.ndarray,
    policy: Policy,
    kv_tokens: int,
    noise: float,
    seed: int,
    log: bool,
) -> tuple[World, RequestTable, Scheduler]:
    """The host's world, the request table and the scheduler of one replica that serves `rows`."""
    index = requests.class_index[rows]
    app = index if requests.app is None else requests.app[rows]
    table = new_table(len(rows))
    interactive = np.array([c.interactive for c in requests.classes])[index]
    fill(
        table,
        arrival_s=requests.arrival_s[rows],
        prompt_tokens=requests.prompt_tokens[rows],
        deadline_slo_s=np.array([c.deadline_slo_s for c in requests.classes])[index],
        tbt_s=np.array([c.tbt_s or 0.0 for c in requests.classes])[index],
        interactive=interactive,
        important=requests.important[rows],
        app=app,
    )
    outputs = requests.output_tokens[rows].astype(np.int32)
    if policy.estimator == ORACLE_ESTIMATOR:
        table.decode_estimate[:] = outputs
    apps = int(app.max()) + 1 if len(app) else 1
    scheduler = new_scheduler(len(rows), policy.max_running, apps, kv_tokens, policy.alpha_low)
    world = World(
        requests.arrival_s[rows],
        outputs,
        start[rows],
        token_s,
        np.full(len(rows), np.nan),
        np.zeros(1),
        np.zeros(4, np.int64),
        np.zeros((LOG_ROWS if log else 0, len(LOG_COLUMNS))),
        np.array([noise, float(seed)]),
    )
    return world, table, scheduler


def _run_replica(world, scheduler, table, policy, predictor, executor):
    """Yield the iteration log slice by slice until every request has finished."""
    params, rules = policy.params(), policy.rules()
    models = predictor.build(), executor.build()
    while world.progress[FINISHED] < len(world.arrival_s):
        advance(world, scheduler, table, params, rules, *models, SLICE_ITERATIONS)
        yield world.log[: world.progress[LOGGED]].copy()
        world.progress[LOGGED] = 0
