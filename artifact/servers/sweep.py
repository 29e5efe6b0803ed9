"""The sweep over real servers: one start of the servers per system and seed, for all loads; one file per finished load.

What is on disk and belongs to the same run is kept, so a killed sweep goes on where it stopped. Where there are fewer
GPUs than servers, a system's pools run one after the other, each on its own classes' requests at the same intended
times, and the parts are joined: pools share nothing, so side by side they would not have noticed each other.

Where the machine's speed changes within an hour, systems measured one after the other do not compare. On the CPU all
systems' servers therefore run at once, an idle one takes no time, and at each load the systems are measured in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

from artifact.results import metrics
from artifact.runs.rows import identity_of
from artifact.runs.run import arrivals_of
from artifact.runs.spec import RunSpec
from artifact.servers.command_line import EMULATED, MAX_MODEL_TOKENS
from artifact.servers.counters import COUNTERS, read_counters
from artifact.servers.fleet import Fleet, running
from artifact.servers.measured import Client, ClientLagged, Measured, RunFailed, check_fits, measure, warm_up
from artifact.servers.measured_files import read_measured, write_measured
from artifact.servers.process import ServerError
from artifact.servers.run_cycle import RunCycle
from artifact.servers.split_run import join_parts, part_of
from niyama import QoSClass
from niyama.sim import Requests

NO_PREDICTOR = "none"
Tell = Callable[[str], None]


def measure_run_cycle(cycle: RunCycle, tell: Tell) -> list[dict[str, Any]]:
    """Measure the points that are not on disk yet; the summary rows of all, read back from their files.

    Raises ServerError or RunFailed; finished points stay on disk.
    """
    left = [spec for spec in cycle.specs if not cycle.done(spec)]
    if cycle.in_turn:
        for pool in cycle.pools if left else ():
            _measure_missing(pool, [spec for spec in left if not pool.done(spec)], tell)
        for spec in left:
            _join_pools(cycle, spec)
            tell(_describe_point(cycle, spec))
    else:
        _measure_missing(cycle, left, tell)
    return finished_rows(cycle)


def measure_in_turn(cycles: Sequence[RunCycle], tell: Tell) -> None:
    """Measure the missing points of all cycles, the systems in turn at each load; who is first changes every time.

    All servers run at once; cycles of one system, of several seeds, share its servers. A system whose servers fail is
    left out from there on: its own run cycle tries again what is missing, and fails for it. Raises RunFailed when no
    system's servers are left.
    """
    left = [
        (cycle.specs[0].seed, at, part)
        for cycle in cycles
        for part in cycle.parts
        for at, spec in enumerate(cycle.specs)
        if not cycle.done(spec) and not part.done(spec) and len(_requests(part, spec)) > 0
    ]
    with ExitStack() as stack:
        fleets: dict[str, Fleet] = {}
        for part in {part.label: part for _, _, part in reversed(left)}.values():
            with _left_out_on_failure(fleets, part, tell):
                fleets[part.label] = stack.enter_context(_started(part, tell))
        rounds = groupby(sorted(left, key=lambda point: point[:2]), key=lambda point: point[:2])
        for turn, (_, points) in enumerate(rounds):
            there = list(points)
            for _, at, part in there[turn % len(there) :] + there[: turn % len(there)]:
                if part.label in fleets:
                    with _left_out_on_failure(fleets, part, tell):
                        spec = part.specs[at]
                        _measure_point(part, fleets[part.label], spec, _requests(part, spec), tell)
                        tell(_describe_point(part, spec))
        if left and not fleets:
            raise RunFailed("the servers of every system failed; their logs, named above, say why")


@contextmanager
def _left_out_on_failure(fleets: dict[str, Fleet], part: RunCycle, tell: Tell) -> Iterator[None]:
    try:
        yield
    except (ServerError, RunFailed) as error:
        fleets.pop(part.label, None)
        tell(f"error: {error}; what is missing of {part.label} is measured by itself afterwards")


def finished_rows(cycle: RunCycle) -> list[dict[str, Any]]:
    """The summary rows of the points that are on disk."""
    return [row for spec in cycle.specs if cycle.done(spec) for row in summary_rows(cycle, spec)]


def _measure_missing(cycle: RunCycle, missing: list[RunSpec], tell: Tell) -> None:
    """Start the servers and measure these points; no servers where there is nothing to send."""
    points = [(spec, _requests(cycle, spec)) for spec in missing]
    points = [(spec, requests) for spec, requests in points if len(requests) > 0]
    if not points:
        return
    with _started(cycle, tell) as fleet:
        for spec, requests in points:
            _measure_point(cycle, fleet, spec, requests, tell)
            tell(_describe_point(cycle, spec))


@contextmanager
def _started(cycle: RunCycle, tell: Tell) -> Iterator[Fleet]:
    """The cycle's servers, warmed up."""
    tell(f"{cycle.label}: starting {cycle.system.replicas} {cycle.engine.backend} server(s)")
    with running(cycle.system, cycle.engine, cycle.specs[0].classes, cycle.folder) as fleet:
        tell(f"{cycle.label}: ready after {fleet.ready_s:.0f} s")
        warm_up(_client(cycle, fleet, 0), cycle.classes(cycle.specs[0]), cycle.system.replicas)
        yield fleet


def _promises(spec: RunSpec) -> tuple[QoSClass, ...]:
    return tuple(c.qos() for c in spec.classes)


def _requests(cycle: RunCycle, spec: RunSpec) -> Requests:
    """The point's requests that these servers serve."""
    requests = arrivals_of(spec)
    check_fits(requests, MAX_MODEL_TOKENS)
    return part_of(requests, cycle.rows(spec, requests))


def _client(cycle: RunCycle, fleet: Fleet, seed: int) -> Client:
    return Client(fleet.url, fleet.model, dict(cycle.system.priorities), seed, cycle.max_lag_p99_s)


def _measure_point(cycle: RunCycle, fleet: Fleet, spec: RunSpec, requests: Requests, tell: Tell) -> None:
    """Measure one load and write its file. A run whose client lagged is repeated; at last the least late one counts.

    That the machine is busy is no failure: the file says it, and whoever shows the point says it too.
    """
    best: tuple[Measured, dict[str, int]] | None = None
    for attempt in range(1, cycle.attempts + 1):
        before = [read_counters(server.url) for server in fleet.servers]
        try:
            measured = measure(_client(cycle, fleet, spec.seed), requests)
        except RunFailed:
            fleet.check_alive()  # a dead server is the better explanation
            raise
        except ClientLagged as lagged:
            tell(f"{cycle.label} at {spec.load_qps:g} QPS, attempt {attempt} of {cycle.attempts}: {lagged}")
            measured = lagged.measured
        fleet.check_alive()  # the router lets runs outlive a server, but what they measured is another system
        after = [read_counters(server.url) for server in fleet.servers]
        counted = {name: sum(a[name] - b[name] for a, b in zip(after, before, strict=True)) for name in COUNTERS}
        if best is None or measured.lag_p99_s < best[0].lag_p99_s:
            best = measured, counted
        if best[0].lag_p99_s <= cycle.max_lag_p99_s:
            break
    _write(cycle, spec, *best, attempt)


def _write(cycle: RunCycle, spec: RunSpec, measured: Measured, counted: dict[str, int], attempts: int) -> None:
    write_measured(
        cycle.path(spec), measured, **cycle.about(spec), counters=counted, backend=cycle.engine.backend,
        trace=spec.trace, lag_p99_s=measured.lag_p99_s, attempts=attempts,
    )  # fmt: skip


def _join_pools(cycle: RunCycle, spec: RunSpec) -> None:
    """The point's file from those of its pools."""
    requests = arrivals_of(spec)
    parts, abouts = [], []
    for pool in cycle.pools:
        rows = pool.rows(spec, requests)
        if len(rows) > 0:  # a short run may have no request of a class
            measured, about = read_measured(pool.path(spec), _promises(spec))
            parts.append((rows, measured))
            abouts.append(about)
    counted = {name: sum(about["counters"][name] for about in abouts) for name in COUNTERS}
    _write(cycle, spec, join_parts(requests, parts), counted, max(about["attempts"] for about in abouts))


def _describe_point(cycle: RunCycle, spec: RunSpec) -> str:
    measured, _ = read_measured(cycle.path(spec), _promises(spec))
    violated = metrics.request_columns(measured.requests, measured.run)["violated"].mean()
    return (
        f"{cycle.label} at {spec.load_qps:g} QPS on {cycle.system.replicas} server(s): "
        f"{len(measured.requests)} requests, {violated:.1%} violated, "
        f"client lag {measured.lag_p99_s * 1e3:.1f} ms (p99)"
        + (", measured on a busy machine" if measured.lag_p99_s > cycle.max_lag_p99_s else "")
    )


def summary_rows(cycle: RunCycle, spec: RunSpec) -> list[dict[str, Any]]:
    """The metrics of a measured point, a row per group, from its file; null where a client cannot know."""
    measured, about = read_measured(cycle.path(spec), _promises(spec))
    requests, run = measured.requests, measured.run
    columns = metrics.request_columns(requests, run)
    whole = metrics.run_metrics(requests, run) | {"iterations": about["counters"]["iterations"], "un_relegations": None}
    whole |= {"server_preemptions": about["counters"]["preemptions"], "lag_p99_s": about["lag_p99_s"]}
    whole |= {"attempts": about["attempts"], "busy": about["lag_p99_s"] > cycle.max_lag_p99_s}
    who = identity_of(spec, cycle.engine.backend, spec.trace, cycle.system.replicas)
    who |= {"predictor": _predictor(cycle, spec)}
    rows = []
    for name, mask in metrics.groups(requests):
        row = {**who, "group": name, **metrics.summarise(requests, run, columns, mask), **whole, "preemptions": None}
        if measured.relegated is None and cycle.system.is_niyama:
            row["relegated_share"] = None
        rows.append(row)
    return rows


def _predictor(cycle: RunCycle, spec: RunSpec) -> str:
    if not cycle.system.is_niyama:
        return NO_PREDICTOR
    return (
        spec.predictor_label if cycle.engine.backend == EMULATED else f"{spec.latency_name}, corrected by measurement"
    )
