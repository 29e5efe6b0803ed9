"""Rows of the named experiments: grids of runs, and capacity searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from artifact.experiments.capacity import find_capacity, silo_capacity
from artifact.experiments.config import Search, SweepExperiment
from artifact.runs.rows import summary_rows
from artifact.runs.run import backend, run
from artifact.runs.spec import RunSpec
from artifact.runs.systems import SILO

OnRun = Callable[[RunSpec], None] | None


def grid_rows(specs: list[tuple[str, RunSpec]], on_run: OnRun = None) -> list[dict[str, Any]]:
    """A grid's runs in the order given: one row per run and group of requests, with the run's label as `variant`."""
    rows = []
    for label, spec in specs:
        if on_run is not None:
            on_run(spec)
        rows += [{"variant": label, **row} for row in summary_rows(run(spec))]
    return rows


def search_rows(search: Search, specs: list[tuple[str, RunSpec]], on_run: OnRun = None) -> list[dict[str, Any]]:
    """A row per search and criterion, with the label as `variant`; each search starts near the answer of the last."""
    rows, guess = [], None
    for label, spec in specs:
        find = silo_capacity if spec.system == SILO else find_capacity
        found = find(spec, search.seeds, search.step_qps, guess, on_run=on_run)
        guess = found[0]["capacity_qps"] or guess
        rows += [{"backend": backend(spec), "variant": label, **row} for row in found]
    return rows


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
