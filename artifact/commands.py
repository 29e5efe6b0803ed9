"""What each command does. Only this module, `words` and `__main__` print."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from artifact import capacity as capacities_of
from artifact import cluster as clusters
from artifact import grids, metrics, pipeline, tables
from artifact import sweep as sweeps
from artifact.config import MOST_REPLICAS, ConfigError, RunSpec, load_classes, parse
from artifact.experiments import Grid, Search, load_experiments, named_experiment
from artifact.failures import Incomplete
from artifact.progress import requests_done, run_started
from artifact.runs import BACKEND, run, warm_up_like
from artifact.sources import describe_trace, trace
from artifact.table_code import code_of
from artifact.words import describe_capacity, print_point


def _spec(options: argparse.Namespace, **more: Any) -> RunSpec:
    """The RunSpec of the command line."""
    values: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("trace", "system", "requests", "latency", "predictor", "noise", "routing", "low_importance_share")
    }
    if options.classes is not None:
        values["classes"] = load_classes(options.classes)
    if options.replicas is not None:
        values["replicas"] = integers("--replicas", options.replicas)
    values["arrivals"] = _json("--arrivals", options.arrivals) if options.arrivals.startswith("{") else options.arrivals
    values["policy"] = _json("--policy", options.policy)
    return parse(RunSpec, {**values, **more}, "command line")


def integers(flag: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} is {text!r}; write whole numbers such as 7,3,3") from None
    if not all(1 <= number <= MOST_REPLICAS for number in numbers):
        raise ConfigError(f"{flag} is {text!r}; give each pool 1 to {MOST_REPLICAS}")
    return numbers


def _json(flag: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{flag} is {text!r}, which is not JSON ({error.msg})") from None


def simulate(options: argparse.Namespace) -> None:
    """One point."""
    spec = _spec(options, load_qps=options.load, seed=options.seed, overlapped=options.overlapped)
    warm_up_like(spec, decision_log=options.decision_log is not None)
    progress = requests_done(spec.requests)
    done = run(spec, log=options.out is not None, decision_log=options.decision_log, progress=progress)
    rows = sweeps.summary_rows(done)
    answer = point(done, rows)
    if options.out is not None:
        pipeline.write_run(options.out, done)
    if options.json:
        print(json.dumps(answer, indent=1))
    else:
        print_point(answer)


def point(done, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer of `simulate`: the run, its metrics, and each group's."""
    by_group = {row["group"]: row for row in rows}
    shared = {**sweeps.identity(done), **metrics.run_metrics(done.requests, done.run)}
    own = {name: {k: v for k, v in row.items() if k not in shared and k != "group"} for name, row in by_group.items()}
    names = [c.name for c in done.spec.classes]
    return {
        **shared,
        "kernel_s": done.kernel_s,
        "iterations_per_s": done.run.iterations / done.kernel_s,
        "requests_per_s": done.spec.requests / done.kernel_s,
        **own["all"],
        "classes": {name: own[name] for name in names if name in own},
        "groups": {name: row for name, row in own.items() if name not in names and name != "all"},
    }


def capacity(options: argparse.Namespace) -> None:
    """A capacity with its bracket and interval, under both criteria."""
    spec = _spec(options, load_qps=1.0)
    rows = capacities_of.find_capacity(spec, options.seeds, options.step, on_run=run_started(searches=options.seeds))
    by_criterion = {row["criterion"]: row for row in rows}
    strict, paper = (by_criterion[name] for name in capacities_of.CRITERIA)
    answer = {"backend": BACKEND, **strict, "without_tbt": {k: paper[k] for k in strict if paper[k] != strict[k]}}
    answer["capacity_without_tbt_qps"] = paper["capacity_qps"]
    if options.json:
        print(json.dumps(answer, indent=1))
        return
    print(f"{strict['system']} on {strict['trace']}, N = {strict['requests']}, {strict['seeds']} seeds")
    print(f"backend {BACKEND}, latency {strict['latency']}, predictor {strict['predictor']}")
    for title, row in (("all SLOs", strict), ("TTFT and TTLT only", paper)):
        print(f"  {title:20s} {describe_capacity(row)}")
    print(f"  fluid bound          {strict['fluid_bound_qps']:.3f} QPS (a finite run can exceed it)")


def bench(options: argparse.Namespace) -> None:
    """Speed of simulator and kernel."""
    from artifact import bench as benchmark

    found = benchmark.bench(
        requests=options.requests, repeats=options.repeats, dynosim=options.dynosim, http=options.http
    )
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        benchmark.print_bench(found)


def compile_kernel(options: argparse.Namespace) -> None:
    """Compile once, so that jobs side by side need not."""
    start = time.perf_counter()
    pipeline.warm_up()
    print(f"kernel ready in {time.perf_counter() - start:.1f} s")
    tables.write_text(options.out, "compiled\n")


def prepare_trace(options: argparse.Namespace) -> None:
    """Get a trace; write what it is."""
    about = describe_trace(options.name)
    tables.write_text(options.out, json.dumps(about, indent=1) + "\n")
    print(f"{about['trace']}: {trace(options.name).source}, {about['rows']} rows")


def capacities(options: argparse.Namespace) -> None:
    """Capacities of an experiment on one trace."""
    config = load_experiments(options.config)
    experiment = config.long_capacity if options.run_length == "long" else config.capacity
    guesses = tables.read_table(options.guesses).to_pylist() if options.guesses else []
    if options.trace not in experiment.requests:
        raise ConfigError(f"{options.config}: requests has no entry for trace {options.trace!r}; add one")
    requests = experiment.requests[options.trace]
    specs = capacities_of.specs(experiment, actual_trace(options), options.latency, requests)
    told = run_started(searches=len(specs) * experiment.seeds)
    rows = capacities_of.capacities(experiment, specs, options.run_length, guesses, on_run=told)
    write_rows(options, rows, experiment)


def sweep(options: argparse.Namespace) -> None:
    """A load sweep on one trace."""
    experiment = load_experiments(options.config).sweep
    specs = sweeps.sweep_specs(experiment, actual_trace(options), options.latency)
    write_rows(options, sweeps.sweep(specs, run_started(len(specs))), experiment)


def cluster(options: argparse.Namespace) -> None:
    """Fleets on one trace."""
    experiment = load_experiments(options.config).cluster
    rows = clusters.cluster(experiment, actual_trace(options), options.latency, run_started())
    write_rows(options, rows, experiment)


def grid(options: argparse.Namespace) -> None:
    """A grid of runs on one trace."""
    experiment = named_experiment(options.config, options.name, Grid)
    specs = experiment.specs(actual_trace(options), options.latency)
    write_rows(options, grids.grid_rows(specs, run_started(len(specs))), experiment)


def search(options: argparse.Namespace) -> None:
    """Capacity searches on one trace."""
    experiment = named_experiment(options.config, options.name, Search)
    if options.trace not in experiment.requests:
        raise ConfigError(f"{options.config}: searches.{options.name}.requests has no trace {options.trace!r}; add it")
    specs = experiment.specs(actual_trace(options), options.latency, experiment.requests[options.trace])
    told = run_started(searches=len(specs) * experiment.seeds)
    write_rows(options, grids.search_rows(experiment, specs, told), experiment)


def actual_trace(options: argparse.Namespace) -> str:
    """The trace's name, or that of its synthetic twin where the description says so: asked for once, not per job."""
    return json.loads(options.described.read_text())["trace"] if options.described else options.trace


def write_rows(
    options: argparse.Namespace, rows: list[dict[str, Any]], experiment: Any, out: Path | None = None
) -> None:
    """Write a job's rows of an experiment to `out` (none given: its --out) with the trace's description."""
    name, about = actual_trace(options), {"backend": BACKEND, "latency": options.latency}
    code = code_of(options.command, options.latency, name, settings=experiment)
    tables.write_table(out or options.out, rows, **about, trace=describe_trace(name), code=code)


def merge(options: argparse.Namespace) -> None:
    """Join tables."""
    pipeline.merge(options.tables, options.out)


def figure(options: argparse.Namespace) -> None:
    """Draw one figure in all its variants, and its page."""
    from artifact.page import write_figure_page
    from artifact.render import render

    paths = [*render(options.name, options.results), write_figure_page(options.name, options.results)]
    if options.stamp is not None:
        tables.write_text(options.stamp, "".join(f"{Path(p).name}\n" for p in paths))
    print("\n".join(str(p) for p in paths))


def list_figures(options: argparse.Namespace) -> None:
    """Every figure, and what it is drawn from."""
    from artifact.render import listing

    print(listing())


def report(options: argparse.Namespace) -> None:
    """Write the report."""
    from artifact.report import write_report

    missing = Incomplete.read(options.incomplete) if options.incomplete else None
    print(write_report(options.results, options.figures, servers=options.servers, name=options.name, missing=missing))
    if options.stamp is not None:
        tables.write_text(options.stamp, "complete\n")


def timings(options: argparse.Namespace) -> None:
    """How long each part took, from the benchmark files Snakemake keeps."""
    print(pipeline.timings_text(options.results))
