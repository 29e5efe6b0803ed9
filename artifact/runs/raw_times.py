"""A run's raw times on disk: what arrived, when each token came out, and every iteration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artifact.results.code_hash import code_of
from artifact.results.tables import write_table
from artifact.runs.run import Result, trace_of
from artifact.runs.sources import about as trace_about
from niyama.sim import LOG_COLUMNS, Requests, Run
from traces import is_own


def raw_columns(requests: Requests, done: Run) -> dict[str, Any]:
    """The columns of requests.parquet: what arrived and its raw times, nothing derived.

    token_times_s are absolute seconds of the run's clock, as float64: float32 would round gaps to 4 ms by the end
    of a long run.
    """
    names = np.array([c.name for c in requests.classes])
    return {
        "arrival_s": requests.arrival_s,
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "qos_class": names[requests.class_index],
        "important": requests.important,
        "replica": done.replica,
        "first_scheduled_s": done.first_scheduled_s,
        "token_times_s": pa.LargeListArray.from_arrays(done.token_start, done.token_s),
        "finished_s": done.token_s[done.token_start[1:] - 1],
        "status": np.full(len(requests), "finished"),
        "relegations": done.relegations,
        "preemptions": done.preemptions,
    }


def write_run(folder: Path, result: Result) -> None:
    """requests.parquet and iterations.parquet of one simulated run."""
    spec, done, columns = result.spec, result.run, raw_columns(result.requests, result.run)
    about = {"spec": spec.model_dump(mode="json"), "backend": result.backend, "trace": result.trace_name}
    read = spec.trace if is_own(spec.trace) else result.trace_name
    named = [name for name in (spec.system, spec.routing) if name is not None]
    about["code"] = code_of("simulate", spec.latency, spec.predictor_name, read, *named)
    if is_own(spec.trace):
        about["trace"] = trace_about(trace_of(spec))
    write_table(folder / "requests.parquet", pa.table(columns), listed=False, **about)
    log = {"replica": done.log[:, 0].astype(np.int32)}
    log |= {name: done.log[:, i + 1] for i, name in enumerate(LOG_COLUMNS)}
    write_table(folder / "iterations.parquet", pa.table(log), listed=False, **about)
