"""Simulate a system on a list of requests: route, run every replica, gather raw times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from niyama.faults import refuse_fault, rule_error
from niyama.jit import record
from niyama.kernel import Kernel
from niyama.latency import ModelCard
from niyama.latency.model import MOST_NOISE
from niyama.policies import Policy
from niyama.qos import QoSClass
from niyama.requests import RequestTable, fill, hand_over, new_table
from niyama.sim.overlapped import advance_overlapped, new_flight
from niyama.sim.replica import LOG_COLUMNS, Progress, World, advance
from niyama.sim.system import System, route
from niyama.state import KV_BLOCK_TOKENS, State, new_state

ORACLE_ESTIMATOR = "oracle"
SLICE_ITERATIONS = 2_000_000
LOG_ROWS = 65_536
SEED_STRIDE = 1009  # noise streams of one seed; more than a system has replicas


@dataclass(frozen=True)
class Requests:
    """n requests sorted by arrival. Times in seconds, lengths in tokens; `class_index` points into `classes`.

    `output_tokens` is the truth: the simulator ends requests by it and shows it to no policy.
    `app` says whose output-length history applies (default: the class).
    `emitted_tokens`: output tokens that other replicas have made; the request comes with the KV of its prompt and of
    all of them but the last, which has not been through the model yet (default: none). Their times stay 0 in a Run.
    """

    classes: tuple[QoSClass, ...]
    class_index: np.ndarray
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    important: np.ndarray
    app: np.ndarray | None = None
    emitted_tokens: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def check(self, kv_tokens: int) -> None:
        """ValueError naming the first row, or the column, that a replica with `kv_tokens` of KV cannot serve."""
        for column in ("class_index", "prompt_tokens", "output_tokens", "important", "app", "emitted_tokens"):
            values = getattr(self, column)
            if values is not None and len(values) != len(self):
                raise ValueError(f"requests: {column} has {len(values)} rows and arrival_s {len(self)}; give one each")
        index, classes, emitted = self.class_index, len(self.classes), self.emitted_tokens
        handed_over = np.False_ if emitted is None else (emitted < 0) | (emitted >= self.output_tokens)
        for column, bad, wanted in (
            ("output_tokens", self.output_tokens < 1, "at least 1"),
            ("prompt_tokens", self.prompt_tokens < 1, "at least 1"),
            ("arrival_s", ~np.isfinite(self.arrival_s), "a finite number of seconds"),
            ("arrival_s", np.diff(self.arrival_s, prepend=-np.inf) < 0, "not before the one above it; sort the rows"),
            ("class_index", (index < 0) | (index >= classes), f"the index of one of the {classes} classes"),
            ("app", np.False_ if self.app is None else self.app < 0, "0 or more"),
            ("emitted_tokens", handed_over, "0 or more and less than output_tokens"),
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
    noise: float = 0.0,
    seed: int = 0,
    log: bool = False,
    overlapped: bool = False,
    started_first: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Run `requests` through `system` to the end.

    executor, predictor: latency model cards; each replica gets its own instances. noise: standard deviation of the
    log of step times. overlapped: plan while the iteration before is in flight (`niyama.sim.overlapped`).
    started_first: run prompts in KV before new ones, as vLLM does (and overlapped): one latency model cares.
    progress: called now and then with the number of requests finished so far.
    Raises ValueError for requests that cannot be served, for classes without a pool, for a policy that stalls
    and, as RuleError, for a rule that fails.
    """
    kv_tokens = check_run(requests, executor, noise)
    columns = requests.class_index, requests.arrival_s, requests.prompt_tokens
    replica = route(system, requests.classes, *columns, predictor)
    run, logs, iterations, un_relegations, done = blank_run(requests, replica), [], 0, 0, 0
    for k, policy in enumerate(pool.policy for pool in system.pools for _ in range(pool.replicas)):
        rows, stream = np.flatnonzero(replica == k), seed * SEED_STRIDE + k
        world, table, state = _set_up(
            requests, rows, run.token_start, run.token_s, policy, kv_tokens, noise, stream, log, started_first
        )
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
    return replace(run, iterations=iterations, un_relegations=un_relegations, log=np.concatenate([run.log, *logs]))


def check_run(requests: Requests, executor: ModelCard, noise: float) -> int:
    """Tokens of KV of a replica, in whole blocks; ValueError when the run makes no sense."""
    kv_tokens = executor.kv_tokens // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS
    requests.check(kv_tokens)
    if not 0 <= noise <= MOST_NOISE:
        raise ValueError(f"noise is {noise}; it must be finite and not negative, at most {MOST_NOISE:g}")
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
    noise: float,
    seed: int,
    log: bool,
    started_first: bool = False,
) -> tuple[World, RequestTable, State]:
    """The engine's world, the request table and the scheduler's state of one replica that serves `rows`."""
    table, outputs = _filled_table(requests, rows), requests.output_tokens[rows].astype(np.int32)
    if policy.estimator == ORACLE_ESTIMATOR:
        table.decode_estimate[:] = outputs
    apps = int(table.app.max(initial=0)) + 1
    state = new_state(len(rows), policy.max_running, apps, kv_tokens, policy.alpha_low)
    world = World(
        requests.arrival_s[rows].astype(np.float64),
        outputs,
        start[rows],
        token_s,
        np.full(len(rows), np.nan),
        record(Progress()),
        np.zeros((LOG_ROWS if log else 0, len(LOG_COLUMNS))),
        np.array([noise, float(seed % 2**31)]),  # the generator's seeds have 31 bits
        started_first,
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
        app=index if requests.app is None else requests.app[rows],
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
