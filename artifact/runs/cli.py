"""`simulate`: one system at one load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from artifact.commands.progress import requests_done
from artifact.commands.table import Verb
from artifact.results import metrics
from artifact.runs.options import about, add_load, add_run_options, spec_of
from artifact.runs.rows import identity, summary_rows
from artifact.runs.run import Result, run, warm_up_like
from artifact.runs.text import print_point
from artifact.runs.unread import warn_of_unread
from figures.groups import ALL


def add_commands(verb: Verb) -> None:
    """Add `simulate` to the command line."""
    one = verb("simulate", simulate)
    add_load(one)
    one.add_argument("--seed", type=int, default=0, help=about("seed"))
    one.add_argument("--out", type=Path, help="folder for requests.parquet and iterations.parquet")
    one.add_argument("--overlapped", action="store_true", help=about("overlapped"))
    one.add_argument("--decision-log", type=Path, help="file for every decision, to `replay` (one replica)")
    add_run_options(one, 39_000)


def simulate(options: argparse.Namespace) -> None:
    """One point."""
    spec = spec_of(options, load_qps=options.load, seed=options.seed, overlapped=options.overlapped)
    warn_of_unread(spec)
    if options.decision_log is not None:
        options.decision_log.parent.mkdir(parents=True, exist_ok=True)
    warm_up_like(spec, decision_log=options.decision_log is not None)
    progress = requests_done(spec.requests)
    done = run(spec, log=options.out is not None, decision_log=options.decision_log, progress=progress)
    rows = summary_rows(done)
    answer = point(done, rows)
    if options.out is not None:
        from artifact.runs.raw_times import write_run  # with pyarrow

        write_run(options.out, done)
    if options.json:
        print(json.dumps(answer, indent=1))
    else:
        print_point(answer)


def point(done: Result, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer of `simulate`: the run, its metrics, and each group's."""
    by_group = {row["group"]: row for row in rows}
    shared = {**identity(done), "changed": done.spec.changed, **metrics.run_metrics(done.requests, done.run)}
    own = {name: {k: v for k, v in row.items() if k not in shared and k != "group"} for name, row in by_group.items()}
    names = [c.name for c in done.spec.classes]
    return {
        **shared,
        "kernel_s": done.kernel_s,
        "iterations_per_s": done.run.iterations / done.kernel_s,
        "requests_per_s": done.spec.requests / done.kernel_s,
        **own[ALL],
        "classes": {name: own[name] for name in names if name in own},
        "groups": {name: row for name, row in own.items() if name not in names and name != ALL},
    }
