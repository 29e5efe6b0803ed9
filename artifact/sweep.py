"""Load sweep: every system at every load and seed; one row per run and group of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifact import metrics
from artifact.config import RunSpec
from artifact.runs import BACKEND as BACKEND
from artifact.runs import Result, run
from niyama.sim import Requests, Run

if TYPE_CHECKING:
    from artifact.experiments import SweepExperiment


def identity(result: Result) -> dict[str, object]:
    """The columns that say which run a row is about."""
    return identity_of(result.spec, result.backend, result.trace_name, result.system.replicas)


def identity_of(spec: RunSpec, backend: str, trace_name: str, replicas: int) -> dict[str, object]:
    """The same for a run on any backend."""
    return {
        "backend": backend,
        "trace": trace_name,
        "system": spec.system,
        "latency": spec.latency_name,
        "predictor": spec.predictor_label,
        "load_qps": float(spec.load_qps),
        "requests": spec.requests,
        "seed": spec.seed,
        "replicas": replicas,
    }


def summary_rows(result: Result) -> list[dict[str, object]]:
    """The run's metrics, one row per group."""
    return group_rows(identity(result), result.requests, result.run)


def group_rows(who: dict[str, object], requests: Requests, run: Run) -> list[dict[str, object]]:
    """The same for a run on any backend. who: the columns that say which."""
    columns, whole = metrics.request_columns(requests, run), metrics.run_metrics(requests, run)
    return [
        {**who, "group": name, **metrics.summarise(requests, run, columns, mask), **whole}
        for name, mask in metrics.groups(requests)
    ]


def sweep(specs: list[RunSpec], on_run=None) -> list[dict[str, object]]:
    """Rows of all runs, in the order given."""
    rows = []
    for spec in specs:
        if on_run is not None:
            on_run(spec)
        rows.extend(summary_rows(run(spec)))
    return rows


def sweep_specs(experiment: SweepExperiment, trace_name: str, latency: str) -> list[RunSpec]:
    """Every run of a load sweep on one trace and latency model."""
    return [
        RunSpec(
            trace=trace_name,
            system=system,
            load_qps=float(load),
            requests=experiment.requests,
            seed=seed,
            latency=latency,
        )
        for system in experiment.systems
        for load in experiment.loads_qps
        for seed in range(experiment.seeds)
    ]
