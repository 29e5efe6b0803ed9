"""Fig 12 and 13: load that toggles between less and more than the replica can serve, with some unimportant requests.

Per run a summary by group, the fate of relegated requests included, and latencies in windows of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from artifact.experiments.scenario_config import OverloadExperiment
from artifact.results import metrics
from artifact.runs.rows import identity
from artifact.runs.run import Result, run
from artifact.runs.spec import RunSpec, every
from figures.groups import ALL, LONG, RELEGATED, SHORT

WAVE_COLUMNS = ("low_qps", "high_qps", "dwell_s", "low_importance_share")
WINDOW_QUANTILES = {"p50": 0.5, "p99": 0.99}


def specs(experiment: OverloadExperiment, trace_name: str, latency: str) -> list[RunSpec]:
    """Every run on one trace and latency model."""
    wave = {"low_qps": experiment.low_qps, "high_qps": experiment.high_qps, "dwell_s": experiment.dwell_s}
    mean_qps = (experiment.low_qps + experiment.high_qps) / 2
    one = RunSpec(
        trace=trace_name,
        system=experiment.systems[0],
        load_qps=mean_qps,
        requests=max(1, round(mean_qps * experiment.duration_s)),
        latency=latency,
        arrivals={"kind": "square", **wave},
        low_importance_share=experiment.low_importance_share,
    )
    return every(one, experiment.systems, [mean_qps], experiment.seeds)


def overload(
    experiment: OverloadExperiment,
    trace_name: str,
    latency: str,
    on_run: Callable[[RunSpec], None] | None = None,
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Rows of the tables `overload` and `overload_windows` on one trace and latency model."""
    summary, windows = [], []
    for spec in specs(experiment, trace_name, latency):
        if on_run is not None:
            on_run(spec)
        result = run(spec)
        columns = metrics.request_columns(result.requests, result.run)
        wave = {name: getattr(experiment, name) for name in WAVE_COLUMNS}
        summary += [{**row, **wave} for row in group_rows(result, columns)]
        windows += [{**row, **wave} for row in window_rows(result, columns, experiment.window_s, experiment.stride_s)]
    return summary, windows


def groups(result: Result) -> Iterator[tuple[str, np.ndarray]]:
    """The groups of `metrics`, and those that were relegated at some time: all, of each class, by importance."""
    yield from metrics.groups(result.requests)
    relegated = result.run.relegations > 0
    for name, mask in metrics.groups(result.requests):
        if name == ALL:
            yield RELEGATED, relegated
        elif name not in (SHORT, LONG):
            yield f"{RELEGATED} {name}", relegated & mask


def group_rows(result: Result, columns: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """The summary of each group that is not empty, with the longest latencies, in s."""
    whole = metrics.run_metrics(result.requests, result.run)
    return [
        {
            **identity(result),
            "group": name,
            **metrics.summarise(result.requests, result.run, columns, mask),
            "ttft_max_s": float(columns["ttft_s"][mask].max()),
            "ttlt_max_s": float(columns["ttlt_s"][mask].max()),
            **whole,
        }
        for name, mask in groups(result)
        if mask.any()
    ]


def window_rows(
    result: Result, columns: dict[str, np.ndarray], window_s: float, stride_s: float
) -> list[dict[str, object]]:
    """Per class and window of arrival time: requests, violations and latency (TTFT or TTLT, as the class promises).

    Windows start every `stride_s` from 0 on and are whole: the last ends by the last arrival. Null where nobody came.
    """
    requests, rows = result.requests, []
    starts_s = np.arange(0.0, requests.arrival_s[-1] - window_s, stride_s)
    for index, qos in enumerate(requests.classes):
        own = np.flatnonzero(requests.class_index == index)
        latency_s = columns["ttft_s" if qos.interactive else "ttlt_s"][own]
        violated = columns["missed_first_or_last"][own]
        first, end = (np.searchsorted(requests.arrival_s[own], edge) for edge in (starts_s, starts_s + window_s))
        for start_s, a, b in zip(starts_s, first, end, strict=True):
            row = {"group": qos.name, "start_s": float(start_s), "window_s": window_s, "group_requests": int(b - a)}
            row["violation_rate_without_tbt"] = float(violated[a:b].mean()) if b > a else None
            row |= _quantiles(latency_s[a:b])
            rows.append({**identity(result), **row})
    return rows


def _quantiles(latency_s: np.ndarray) -> dict[str, float | None]:
    """latency_p50_s and latency_p99_s; null of nothing."""
    if not len(latency_s):
        return dict.fromkeys(f"latency_{name}_s" for name in WINDOW_QUANTILES)
    values = np.quantile(latency_s, list(WINDOW_QUANTILES.values()))
    return {f"latency_{name}_s": float(value) for name, value in zip(WINDOW_QUANTILES, values, strict=True)}
