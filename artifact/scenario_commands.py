"""Commands of the experiments with a shape of their own: a disaggregated deployment, and load that comes in waves."""

from __future__ import annotations

import argparse
from typing import Any

from artifact import disaggregated
from artifact import overload as overloads
from artifact.commands import actual_trace, write_rows
from artifact.config import ConfigError
from artifact.experiments import load_experiments
from artifact.progress import run_started


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


def _section(options: argparse.Namespace, name: str) -> Any:
    """A section of the configuration that a file may leave out."""
    found = getattr(load_experiments(options.config), name)
    if found is None:
        raise ConfigError(f"{options.config}: has no section {name}; add one, as in workflows/config/paper.yaml")
    return found
