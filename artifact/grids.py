"""Rows of the named experiments: grids of runs, and capacity searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from artifact.capacity import find_capacity, silo_capacity
from artifact.config import RunSpec
from artifact.experiments import Search
from artifact.runs import backend, run
from artifact.sweep import summary_rows
from artifact.systems import SILO

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
