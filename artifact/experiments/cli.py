"""The steps of the pipeline as commands: each reads a configuration and writes one table or file."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifact.commands.progress import run_started
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.experiments import capacity as capacities_of
from artifact.experiments import disaggregated
from artifact.experiments import fleets as clusters
from artifact.experiments import grid as grids
from artifact.experiments import merge as merging
from artifact.experiments import overload as overloads
from artifact.experiments.chunk_curve import BACKEND as LATENCY_MODEL_ONLY
from artifact.experiments.chunk_curve import chunk_curve
from artifact.experiments.chunk_windows import chunk_throughput, chunk_windows
from artifact.experiments.config import Grid, Search, load_experiments, named_experiment
from artifact.experiments.five_requests import five_requests
from artifact.experiments.operators import operators
from artifact.experiments.polyserve import polyserve_fleets
from artifact.results import tables
from artifact.results.code_hash import code_of
from artifact.results.descriptions import read_description
from artifact.runs import run as runs
from artifact.runs.options import add_run_options, spec_of
from artifact.runs.run import BACKEND
from artifact.runs.sources import describe_trace, trace
from artifact.runs.text import describe_capacity, print_models
from artifact.runs.unread import warn_of_unread
from traces import is_own

#: Table of a panel -> (its settings, latency model) -> rows
PANELS: dict[str, Callable[[Any, str], list[dict[str, Any]]]] = {
    "chunk_curve": chunk_curve,
    "five_requests": five_requests,
    "chunk_windows": chunk_windows,
    "chunk_throughput": chunk_throughput,
    "polyserve_fleets": polyserve_fleets,
    "operators": operators,
}


def add_commands(verb: Verb) -> None:
    """Add all steps to the command line."""
    kernel = verb("compile", compile_kernel)
    kernel.add_argument("--out", type=Path, required=True, help="file that says so")
    source = verb("trace", prepare_trace)
    source.add_argument("name")
    source.add_argument("--out", type=Path, required=True)
    for name, run in (
        ("cluster", cluster),
        ("grid", grid),
        ("search", search),
        ("disaggregated", disaggregate),
        ("overload", overload),
        ("panel", panel),
    ):
        step = verb(name, run)
        if name in ("grid", "search"):
            step.add_argument("name", help="the entry's name")
        if name == "panel":
            step.add_argument("table", choices=PANELS)
        step.add_argument("--config", type=Path, required=True)
        if name != "panel":
            step.add_argument("--trace", required=True)
            step.add_argument("--described", type=Path, help="what `trace` wrote: the trace that stands for it")
        step.add_argument("--latency", required=True)
        step.add_argument("--out", type=Path, required=True)
        if name == "overload":
            step.add_argument("--windows", type=Path, required=True, help="file of the latencies in windows of time")
        if name == "search":
            step.add_argument("--guesses", type=Path, help="table of earlier answers to start from")
    one = verb("capacity", capacity)
    one.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 (default 3)")
    one.add_argument("--step", type=float, default=0.05, help="grid of loads, requests/s (default 0.05)")
    add_run_options(one, 39_000)
    parts = verb("merge", merge)
    parts.add_argument("tables", type=Path, nargs="+")
    parts.add_argument("--out", type=Path, required=True)


def compile_kernel(options: argparse.Namespace) -> None:
    """Compile once, so that jobs side by side need not."""
    start = time.perf_counter()
    runs.warm_up()
    print(f"kernel ready in {time.perf_counter() - start:.1f} s")
    tables.write_text(options.out, "compiled\n")


def prepare_trace(options: argparse.Namespace) -> None:
    """Get a trace; write what it is."""
    about = describe_trace(options.name)
    tables.write_text(options.out, json.dumps(about, indent=1) + "\n")
    print(f"{about['trace']}: {trace(options.name).source}, {about['rows']} rows")


def cluster(options: argparse.Namespace) -> None:
    """Fleets on one trace."""
    experiment = load_experiments(options.config).cluster
    rows = clusters.cluster(experiment, actual_trace(options), options.latency, run_started())
    write_rows(options, rows, experiment)


def grid(options: argparse.Namespace) -> None:
    """A grid of runs on one trace."""
    experiment = named_experiment(options.config, options.name, Grid)
    specs = experiment.specs(actual_trace(options), options.latency)
    write_rows(options, grids.grid_rows(experiment, specs, run_started(len(specs))), experiment)


def search(options: argparse.Namespace) -> None:
    """Capacity searches on one trace."""
    experiment = named_experiment(options.config, options.name, Search)
    if options.trace not in experiment.requests:
        raise ConfigError(f"{options.config}: searches.{options.name}.requests has no trace {options.trace!r}; add it")
    specs = experiment.specs(actual_trace(options), options.latency, experiment.requests[options.trace])
    earlier = tables.read_table(options.guesses, "a table that `search` wrote").to_pylist() if options.guesses else []
    told = run_started(searches=len(specs) * experiment.seeds)
    write_rows(options, grids.search_rows(experiment, specs, told, earlier), experiment)


def disaggregate(options: argparse.Namespace) -> None:
    """Goodput of prefill nodes on one trace."""
    experiment = _section(options, "disaggregated")
    told = run_started(searches=len(experiment.systems) * experiment.seeds)
    rows = disaggregated.capacities(experiment, actual_trace(options), options.latency, told)
    write_rows(options, rows, experiment)


def overload(options: argparse.Namespace) -> None:
    """A square wave of load on one trace."""
    experiment = _section(options, "overload")
    told = run_started(len(experiment.systems) * experiment.seeds)
    summary, windows = overloads.overload(experiment, actual_trace(options), options.latency, told)
    write_rows(options, summary, experiment)
    write_rows(options, windows, experiment, options.windows)


def panel(options: argparse.Namespace) -> None:
    """One panel under one latency model."""
    panels = load_experiments(options.config).panels
    settings = getattr(panels, options.table)
    if settings is None:
        raise ConfigError(f"{options.config}: panels has no {options.table}; add it")
    rows = PANELS[options.table](settings, options.latency)
    traces = {about["trace"]: about for about in map(describe_trace, panels.traces_of(options.table))}
    backend = LATENCY_MODEL_ONLY if options.table == "chunk_curve" else BACKEND
    code = code_of(options.table, options.latency, *traces, settings=settings)
    tables.write_table(options.out, rows, backend=backend, latency=options.latency, traces=traces, code=code)


def capacity(options: argparse.Namespace) -> None:
    """A capacity with its bracket and interval, under both criteria."""
    spec = spec_of(options, load_qps=1.0)
    warn_of_unread(spec)
    rows = capacities_of.find_capacity(spec, options.seeds, options.step, on_run=run_started(searches=options.seeds))
    by_criterion = {row["criterion"]: row for row in rows}
    strict, paper = (by_criterion[name] for name in capacities_of.CRITERIA)
    answer = {"backend": BACKEND, **strict, "changed": spec.changed}
    answer["without_tbt"] = {k: paper[k] for k in strict if paper[k] != strict[k]}
    answer["capacity_without_tbt_qps"] = paper["capacity_qps"]
    if options.json:
        print(json.dumps(answer, indent=1))
        return
    print(f"{strict['system']} on {strict['trace']}, N = {strict['requests']}, {strict['seeds']} seeds")
    print_models(answer)
    for title, row in (("all SLOs", strict), ("TTFT and TTLT only", paper)):
        print(f"  {title:20s} {describe_capacity(row)}")
    print(f"  fluid bound          {strict['fluid_bound_qps']:.3f} QPS (a finite run can exceed it)")


def _section(options: argparse.Namespace, name: str) -> Any:
    """A section of the configuration that a file may leave out."""
    found = getattr(load_experiments(options.config), name)
    if found is None:
        raise ConfigError(f"{options.config}: has no section {name}; add one, as in workflows/config/paper.yaml")
    return found


def actual_trace(options: argparse.Namespace) -> str:
    """The trace's name, or that of its synthetic one where the description says so: asked for once, not per job."""
    if is_own(options.trace) or not options.described:
        return options.trace
    return read_description(options.described)["trace"]


def write_rows(
    options: argparse.Namespace, rows: list[dict[str, Any]], experiment: Any, out: Path | None = None
) -> None:
    """Write a job's rows of an experiment to `out` (none given: its --out) with the trace's description."""
    name, about = actual_trace(options), {"backend": BACKEND, "latency": options.latency}
    code = code_of(options.command, options.latency, name, settings=experiment)
    tables.write_table(out or options.out, rows, **about, trace=describe_trace(name), code=code)


def merge(options: argparse.Namespace) -> None:
    """Join tables."""
    merging.merge(options.tables, options.out)
