"""`python -m artifact panel TABLE`: one panel's rows under one latency model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.experiments.chunk_curve import BACKEND as LATENCY_MODEL_ONLY
from artifact.experiments.chunk_curve import chunk_curve
from artifact.experiments.chunk_windows import chunk_throughput, chunk_windows
from artifact.experiments.config import load_experiments
from artifact.experiments.five_requests import five_requests
from artifact.experiments.panel_config import Panels
from artifact.experiments.polyserve import polyserve_fleets
from artifact.results.code_hash import code_of
from artifact.results.tables import write_table
from artifact.runs.run import BACKEND
from artifact.runs.sources import describe_trace

#: table -> (its settings, latency model) -> rows
ROWS: dict[str, Callable[[Any, str], list[dict[str, Any]]]] = {
    "chunk_curve": chunk_curve,
    "five_requests": five_requests,
    "chunk_windows": chunk_windows,
    "chunk_throughput": chunk_throughput,
    "polyserve_fleets": polyserve_fleets,
}


def add_commands(verb: Verb) -> None:
    """Add `panel` to the commands."""
    parser = verb("panel", panel)
    parser.add_argument("table", choices=ROWS)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--latency", required=True)
    parser.add_argument("--out", type=Path, required=True)


def panel(options: argparse.Namespace) -> None:
    """Write one panel's table for one latency model."""
    panels: Panels = load_experiments(options.config).panels
    settings = getattr(panels, options.table)
    if settings is None:
        raise ConfigError(f"{options.config}: panels has no {options.table}; add it")
    rows = ROWS[options.table](settings, options.latency)
    traces = {about["trace"]: about for about in map(describe_trace, panels.traces_of(options.table))}
    backend = LATENCY_MODEL_ONLY if options.table == "chunk_curve" else BACKEND
    code = code_of(options.table, options.latency, *traces, settings=settings)
    write_table(options.out, rows, backend=backend, latency=options.latency, traces=traces, code=code)
