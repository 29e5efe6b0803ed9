"""Rows of the named experiments: grids of runs, and capacity searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from artifact.experiments.capacity import CRITERIA, find_capacity, in_turn, silo_capacity
from artifact.experiments.config import Grid, Search
from artifact.runs.rows import summary_rows
from artifact.runs.run import backend, run
from artifact.runs.spec import RunSpec
from artifact.runs.systems import SILO

OnRun = Callable[[RunSpec], None] | None


def run_rows(specs: Iterable[RunSpec], on_run: OnRun = None) -> list[dict[str, Any]]:
    """Runs in the order given: one row per run and group of requests."""
    rows = []
    for spec in specs:
        if on_run is not None:
            on_run(spec)
        rows += summary_rows(run(spec))
    return rows


def grid_rows(grid: Grid, specs: list[tuple[str, RunSpec]], on_run: OnRun = None) -> list[dict[str, Any]]:
    """The rows of a grid's runs, each with the label of its variant."""
    return [{**_labelled(grid, label), **row} for label, spec in specs for row in run_rows([spec], on_run)]


def search_rows(
    search: Search,
    specs: list[tuple[str, RunSpec]],
    on_run: OnRun = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """A row per search and criterion, with the label of its variant.

    A search starts at the system's answer among the rows `earlier`, else at that of the search before it.
    """
    near = {row["system"]: row["capacity_qps"] for row in reversed(earlier) if row["criterion"] == CRITERIA[1]}

    def find(spec: RunSpec, guess_qps: float | None) -> list[dict[str, Any]]:
        how = silo_capacity if spec.system == SILO else find_capacity
        return how(spec, search.seeds, search.step_qps, guess_qps, on_run=on_run)

    found = in_turn((spec for _, spec in specs), find, near)
    return [
        {"backend": backend(spec), **_labelled(search, label), **row}
        for (label, spec), rows in zip(specs, found, strict=True)
        for row in rows
    ]


def _labelled(experiment: Grid | Search, label: str) -> dict[str, str]:
    return {experiment.label_column: label} if experiment.label_column else {}
