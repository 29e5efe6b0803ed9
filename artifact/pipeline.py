"""The steps of the pipeline, each a function from files and a configuration to rows or a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artifact.config import ConfigError, RunSpec
from artifact.descriptions import described_in
from artifact.runs import BACKEND, Result, run
from artifact.table_code import code_of, joined_code
from artifact.tables import joined, provenance, read_table, write_table
from niyama.sim import LOG_COLUMNS, Requests, Run


def warm_up() -> None:
    """Run something small, so that the kernel is compiled and in the cache."""
    run(RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=1.0, requests=10))


def merge(paths: list[Path], out: Path) -> None:
    """Join tables of one kind; each one's provenance goes along. ResultError when different code made them."""
    parts = [read_table(path) for path in paths]
    code = joined_code({str(path): provenance(part).get("code") for path, part in zip(paths, parts, strict=True)})
    sources = {}
    for path, part in zip(paths, parts, strict=True):
        about = provenance(part)
        sources |= about.get("traces", {})
        if "trace" in about:
            source = described_in(path, about)
            sources[source["trace"]] = source
    backends = sorted({provenance(part).get("backend", BACKEND) for part in parts})
    write_table(out, joined(parts), backend=", ".join(backends), traces=sources, **code)


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
    about["code"] = code_of("simulate", spec.latency, spec.predictor_name, result.trace_name, spec.system)
    write_table(folder / "requests.parquet", pa.table(columns), **about)
    log = {"replica": done.log[:, 0].astype(np.int32)}
    log |= {name: done.log[:, i + 1] for i, name in enumerate(LOG_COLUMNS)}
    write_table(folder / "iterations.parquet", pa.table(log), **about)


def timings(results: Path) -> list[dict[str, Any]]:
    """Seconds per rule, from the files Snakemake's `benchmark:` keeps under results/benchmarks/RULE/."""
    rows = []
    for folder in sorted((results / "benchmarks").glob("*")):
        jobs = [_seconds(path) for path in sorted(folder.glob("*.tsv"))]
        if jobs:  # none: the first one is still running
            row = {"part": folder.name, "jobs": len(jobs), "seconds": round(sum(jobs), 1), "longest_s": max(jobs)}
            rows.append(row)
    return rows


def _seconds(path: Path) -> float:
    with path.open() as file:
        return float(next(csv.DictReader(file, delimiter="\t"))["s"])


def timings_text(results: Path) -> str:
    """The timings as lines; job seconds add up over cores."""
    rows = timings(results)
    if not rows:
        raise ConfigError(f"{results}: has no benchmarks folder; run `make reproduce` first")
    lines = [
        f"{r['part']:12s} {r['jobs']:3d} jobs {r['seconds']:8.1f} s (longest {r['longest_s']:.1f} s)" for r in rows
    ]
    total = sum(r["seconds"] for r in rows)
    return "\n".join([*lines, f"{'total':12s} {sum(r['jobs'] for r in rows):3d} jobs {total:8.1f} s over all cores"])
