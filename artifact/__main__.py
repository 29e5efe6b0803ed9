"""`python -m artifact COMMAND`: one command per verb; `--help` on each says what it takes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from artifact import commands, engine_sweep, failures, host_commands, scenario_commands
from artifact.bounds import check_numbers
from artifact.config import LATENCY
from artifact.latency import commands as latency_commands
from artifact.latency import engine_profile
from artifact.panels import commands as panel_commands
from artifact.progress import announce_compilation
from artifact.run_lock import join
from artifact.servers import ServerError
from artifact.servers import commands as server_commands
from artifact.servers import steps as server_steps
from artifact.servers.measured import ClientLagged, RunFailed
from artifact.table_code import MADE_BY, code_of
from artifact.tables import ResultError
from artifact.verdicts import commands as verdict_commands
from artifact.vllm_suite import commands as suite_commands
from artifact.vllm_suite.source import Unavailable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # what a command prints is its answer
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    join()
    announce_compilation()
    try:
        check_numbers(options)
        if (made := getattr(options, "table", options.command)) in MADE_BY:
            code_of(made)  # as it is now: an edit while the command runs is none of its table's
        return options.run(options) or 0
    except (ValueError, ResultError, ServerError, RunFailed, ClientLagged, Unavailable) as error:
        failures.note(given, options, error)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, OverflowError) as error:
        failures.note(given, options, error)
        print(f"error: a number is too large ({error}); give fewer --requests or smaller values", file=sys.stderr)
        return 2
    except Exception as error:  # a mistake of ours: the report says it in a line, and here is the traceback
        failures.note(given, options, error)
        raise
    except KeyboardInterrupt:
        # after a counter, which a terminal shows in place
        print("\n" * sys.stderr.isatty() + "interrupted; nothing half-written was left", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m artifact", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _point_commands(verbs)
    _pipeline_commands(verbs)
    panel_commands.add_command(verbs, _verb)
    verdict_commands.add_commands(verbs, _verb)
    server_commands.add_commands(verbs, _verb)
    server_steps.add_commands(verbs, _verb)
    engine_profile.add_command(verbs, _verb)
    latency_commands.add_commands(verbs, _verb)
    host_commands.add_commands(verbs, _verb)
    engine_sweep.add_command(verbs, _verb)
    suite_commands.add_command(verbs, _verb)
    return parser


def _verb(verbs, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run, command=name)
    return parser


def _run_options(parser: argparse.ArgumentParser, requests: int) -> None:
    """The fields of a RunSpec that a single point or a capacity search takes."""
    parser.add_argument("--trace", required=True, help="trace name (`python -m traces list`), or its -synth twin")
    parser.add_argument("--system", required=True, help="system name, or FILE.py:NAME of your own policy")
    parser.add_argument("--requests", type=int, default=requests, help=f"requests that arrive (default {requests})")
    parser.add_argument("--latency", default=LATENCY, help=f"latency model that executes (default {LATENCY})")
    parser.add_argument("--predictor", help="latency model that predicts (default: the executor's own, an oracle)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of the log of step times")
    parser.add_argument("--replicas", help="replicas per pool, such as 4 or 7,3,3 (default one each)")
    parser.add_argument("--routing", default="round-robin", help="round-robin, least-work or packed")
    parser.add_argument(
        "--arrivals", default="poisson", help='poisson, trace, or JSON such as {"kind": "gamma", "cv": 3}'
    )
    parser.add_argument("--classes", type=Path, help="YAML list of QoS classes (default: the paper's Table 3)")
    parser.add_argument("--low-importance-share", type=float, default=0.0, help="share that is not important")
    parser.add_argument("--policy", default="{}", help='numbers of the policy that differ, such as {"margin": 1.0}')
    parser.add_argument("--json", action="store_true", help="print JSON")


def _point_commands(verbs) -> None:
    simulate = _verb(verbs, "simulate", commands.simulate, "Simulate one system at one load.")
    simulate.add_argument("--load", type=float, required=True, help="requests/s to the whole system")
    simulate.add_argument("--seed", type=int, default=0, help="seed of everything random")
    simulate.add_argument("--out", type=Path, help="folder for requests.parquet and iterations.parquet")
    simulate.add_argument("--overlapped", action="store_true", help="plan ahead, as asynchronous vLLM does")
    simulate.add_argument("--decision-log", type=Path, help="file for every decision, to `replay` (one replica)")
    _run_options(simulate, 39_000)
    capacity = _verb(verbs, "capacity", commands.capacity, "Find the load at which the worst class crosses 1 %%.")
    capacity.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 (default 3)")
    capacity.add_argument("--step", type=float, default=0.05, help="grid of loads, requests/s (default 0.05)")
    _run_options(capacity, 39_000)
    bench = _verb(verbs, "bench", commands.bench, "Measure the simulator and the decision kernel.")
    bench.add_argument("--requests", type=int, default=10_000)
    bench.add_argument("--repeats", type=int, default=5)
    bench.add_argument("--dynosim", default="auto", help="auto (own environment), off, or a python that has it")
    bench.add_argument(
        "--http", type=int, default=1, metavar="PAIRS", help="bursts on two vLLM servers: 80 s each; 0: none"
    )
    bench.add_argument("--json", action="store_true", help="print JSON")


def _pipeline_commands(verbs) -> None:
    compile_ = _verb(verbs, "compile", commands.compile_kernel, "Compile the kernel into its cache.")
    compile_.add_argument("--out", type=Path, required=True, help="file that says so")
    trace = _verb(verbs, "trace", commands.prepare_trace, "Get a trace and describe it.")
    trace.add_argument("name")
    trace.add_argument("--out", type=Path, required=True)
    for name, run, text in (
        ("capacities", commands.capacities, "Capacities of all systems on one trace."),
        ("sweep", commands.sweep, "All systems at all loads on one trace."),
        ("cluster", commands.cluster, "Fleets on one trace."),
        ("grid", commands.grid, "The runs of one entry of `grids` on one trace."),
        ("search", commands.search, "The searches of one entry of `searches` on one trace."),
        ("disaggregated", scenario_commands.disaggregate, "Goodput of prefill nodes on one trace."),
        ("overload", scenario_commands.overload, "A square wave of load on one trace."),
    ):
        step = _verb(verbs, name, run, text)
        if name in ("grid", "search"):
            step.add_argument("name", help="the entry's name")
        step.add_argument("--config", type=Path, required=True)
        step.add_argument("--trace", required=True)
        step.add_argument("--described", type=Path, help="what `trace` wrote: the trace that stands for it")
        step.add_argument("--latency", required=True)
        step.add_argument("--out", type=Path, required=True)
        if name == "overload":
            step.add_argument("--windows", type=Path, required=True, help="file of the latencies in windows of time")
        if name == "capacities":
            step.add_argument("--run-length", choices=("paper", "long"), required=True)
            step.add_argument("--guesses", type=Path, help="capacities of shorter runs to start from")
    merge = _verb(verbs, "merge", commands.merge, "Join tables of one kind.")
    merge.add_argument("tables", type=Path, nargs="+")
    merge.add_argument("--out", type=Path, required=True)
    figure = _verb(verbs, "figure", commands.figure, "Draw one figure from the tables.")
    figure.add_argument("name")
    figure.add_argument("--results", type=Path, default=Path("results"))
    figure.add_argument("--stamp", type=Path, help="file listing what was drawn")
    _verb(verbs, "figures", commands.list_figures, "List the figures, and what each is drawn from.")
    report = _verb(verbs, "report", commands.report, "Write the HTML report of figures that are drawn.")
    report.add_argument("--results", type=Path, default=Path("results"))
    report.add_argument("--servers", action="store_true", help="with the tables of vLLM's engine and of real servers")
    report.add_argument("--incomplete", type=Path, help="what a failed run did not make: a box says so in its place")
    report.add_argument("--stamp", type=Path, help="file that says that the report is complete")
    report.add_argument("--figures", nargs="+", help="figures that it holds (default: those of the default target)")
    report.add_argument("--name", default="report", help="its file's name (default report)")
    timings = _verb(verbs, "timings", commands.timings, "Say how long each part of the pipeline took.")
    timings.add_argument("results", type=Path)


if __name__ == "__main__":
    sys.exit(main())
