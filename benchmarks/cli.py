"""`bench` and `overhead`: speed of the simulator and the kernel, and what planning costs vLLM's scheduler."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from artifact.commands.table import Verb
from artifact.engine.fidelity import BACKEND
from artifact.results.code_hash import code_of
from artifact.results.tables import write_table
from artifact.servers.run_cycle import vllm_version


def add_commands(verb: Verb) -> None:
    """Add both to the command line."""
    speed = verb("bench", bench)
    speed.add_argument("--requests", type=int, default=10_000)
    speed.add_argument("--repeats", type=int, default=5)
    speed.add_argument("--dynosim", default="auto", help="auto (own environment), off, or a python that has it")
    speed.add_argument(
        "--http", type=int, default=1, metavar="PAIRS", help="bursts on two vLLM servers: 80 s each; 0: none"
    )
    speed.add_argument("--json", action="store_true", help="print JSON")
    cost = verb("overhead", overhead)
    cost.add_argument("--repeats", type=int, default=5, help="pairs of runs, stock and Niyama in turn (default 5)")
    cost.add_argument("--out", type=Path, required=True, help="table of the queue lengths (Parquet)")


def bench(options: argparse.Namespace) -> None:
    """Speed of simulator and kernel."""
    import benchmarks

    found = benchmarks.bench(
        requests=options.requests, repeats=options.repeats, dynosim=options.dynosim, http=options.http
    )
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        benchmarks.print_bench(found)


def overhead(options: argparse.Namespace) -> None:
    """What planning costs vLLM's scheduler, beside queues of several lengths. ConfigError without vLLM."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from benchmarks.vllm_steps import steps

    with tempfile.TemporaryDirectory() as folder:
        rows = steps(options.repeats, Path(folder))
    about = {"vllm": vllm_version(), "latency": "none: times of the scheduler alone", "repeats": options.repeats}
    about["code"] = code_of(options.command)
    write_table(options.out, rows, backend=BACKEND, **about)
    for row in rows:
        stock_us, own_us = row["stock_schedule_us"], row["niyama_schedule_us"]
        print(
            f"{row['waiting']:6d} waiting: schedule() {stock_us:.0f} us, with Niyama {own_us:.0f} us, "
            f"ratio {row['ratio']:.3f}; with update_from_output {row['step_ratio']:.3f}"
        )
