"""A run as rows of a table: which run it is, and its metrics, one row per group of requests."""

from __future__ import annotations

from artifact.results import metrics
from artifact.runs.run import BACKEND as BACKEND
from artifact.runs.run import Result
from artifact.runs.spec import RunSpec
from niyama.sim import Requests, Run


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
