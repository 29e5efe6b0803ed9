"""`replay` and `fidelity`: a decision log through the kernel again; the simulator compared with vLLM's engine."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from artifact.commands.progress import Line
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.engine import fidelity as fidelities
from artifact.results import tables
from artifact.results.code_hash import code_of
from artifact.runs.sources import describe_trace
from artifact.runs.spec import LATENCY, PAPER_MIX
from artifact.runs.systems import build_system
from artifact.servers.run_cycle import vllm_release
from niyama import Policy
from niyama.decision_log import Replay
from niyama.decision_log import replay as replay_log

AGREES, DIVERGED = 0, 1
TELL_EVERY = 500  # steps


def replay(options: argparse.Namespace) -> int:
    """Re-run a decision log; the status says whether every decision is the same."""
    policy = _one_policy(options.system) if options.system else None
    line = Line()

    def tell(steps: int) -> None:
        if steps % TELL_EVERY == 0:
            line.say(f"{steps:,} steps")

    found = replay_log(options.log, policy, tell)
    line.say(f"{found.steps:,} steps", done=1.0)
    if options.json:
        print(json.dumps({"log": str(options.log), "agrees": found.divergence is None, **vars(found)}, indent=1))
    else:
        print(f"{options.log}: {_describe(found)}")
    return AGREES if found.divergence is None else DIVERGED


def _describe(found: Replay) -> str:
    if found.divergence is not None:
        return f"diverges at {found.divergence}"
    text = f"all {found.steps:,} steps and {found.chunks:,} chunks are decided alike"
    return text if found.cut_short is None else f"{text}, but the log is cut short: {found.cut_short}"


def _one_policy(name: str) -> Policy:
    pools = build_system(name, PAPER_MIX).pools
    if len(pools) != 1:
        raise ConfigError(f"--system is {name!r} with {len(pools)} pools; a log has one policy: name that one")
    return pools[0].policy


def fidelity(options: argparse.Namespace) -> int:
    """Simulator against vLLM, point by point; the status is 1 when one is out of tolerance."""
    points = list(
        fidelities.points(
            options.trace.split(","),
            options.latency.split(","),
            options.slos.split(","),
            _shares(options.loads),
            list(fidelities.SCHEDULERS) if options.scheduler == "both" else [options.scheduler],
            options.capacity,
            system=options.system,
            requests=options.requests,
            seed=options.seed,
            low_importance_share=options.low_importance_share,
        )
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # before vLLM is imported: its start-up says much
    rows, line = [], Line()
    if not options.json:
        print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for number, point in enumerate(points, 1):
            told = partial(_tell, line, number, len(points))
            rows.append(fidelities.compare(point, Path(folder), told))
            if not options.json:
                print(_line(rows[-1]), flush=True)
    if options.out is not None:
        slos = {name: [c.model_dump() for c in fidelities.SLOS[name]] for name in options.slos.split(",")}
        traces = {name: describe_trace(name) for name in options.trace.split(",")}
        about = {"backend": fidelities.BACKEND, "vllm": vllm_release(), "slos": slos, "traces": traces}
        about["code"] = code_of(options.command, *options.latency.split(","), *traces)
        tables.write_table(options.out, rows, **about)
    if options.json:
        print(json.dumps(rows, indent=1))
    return 0 if all(row["passes"] for row in rows) else 1


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share < float("inf") for share in shares):
        raise ConfigError(f"--loads is {text!r}; write shares of capacity such as 0.7,1.0,1.3")
    return shares


HEAD = (
    f"{'trace':16s} {'latency':24s} {'slos':5s} {'class':5s} {'load':>4s}  {'worst class':>15s} {'TTFT':>7s}"
    f" {'TTLT':>7s} {'iterations':>17s} {'relegated':>9s} {'tokens':>8s}\n"
    f"{'':58s}  {'violations, pt':>15s} {'apart':>7s} {'apart':>7s} {'sim / vLLM':>17s} {'s. / v.':>9s}"
    f" {'apart':>8s}"
)


def _line(row: dict[str, Any]) -> str:
    """A row as a line of text: worst violation rate of vLLM's classes and its difference, and the other differences."""
    violated = f"{100 * max(row['violation_rate_vllm']):.1f} +-{row['violation_difference_points']:.2f}"
    steps = f"{row['iterations_sim']:,} / {row['iterations_vllm']:,}"
    return (
        f"{row['trace']:16s} {row['latency']:24s} {row['slos']:5s} {row['scheduler']:5s} {row['load']:4.2f} "
        f" {violated:>15s} {row['ttft_difference']:7.2%} {row['ttlt_difference']:7.2%} {steps:>17s}"
        f" {row['relegated_sim']:>4d} {row['relegated_vllm']:>4d} {row['token_time_difference']:8.1%}"
        f"  {'PASS' if row['passes'] else 'FAIL'}{', identical' if row['identical'] else ''}"
    )


def _tell(line: Line, number: int, points: int, finished: int) -> None:
    line.say(f"point {number} of {points}: {finished} requests", (number - 1) / points)


def add_commands(verb: Verb) -> None:
    """Add both to the command line."""
    again = verb("replay", replay)
    again.add_argument("log", type=Path, help="written by `simulate --decision-log` or by vLLM (decision_log)")
    again.add_argument("--system", help="FILE.py:NAME of the policy, when its rules are not built in")
    again.add_argument("--json", action="store_true", help="print JSON")
    compared = verb("fidelity", fidelity)
    compared.add_argument("--trace", default="azure-code-2023", help="trace, or several with commas")
    compared.add_argument("--system", default="niyama", help="built-in policy (default niyama)")
    compared.add_argument("--latency", default=LATENCY, help=f"latency model, or several (default {LATENCY})")
    compared.add_argument("--slos", default="paper", help="paper, tight (seconds, not minutes), or paper,tight")
    compared.add_argument("--loads", default="0.7,1.0,1.3", help="shares of capacity (default 0.7,1.0,1.3)")
    compared.add_argument(
        "--capacity",
        type=float,
        help="requests/s of load 1 (default: the reference capacity; niyama-steady, for one, has none)",
    )
    compared.add_argument("--requests", type=int, default=1000, help="requests a point (default 1000)")
    compared.add_argument("--seed", type=int, default=0, help="seed of the workload")
    compared.add_argument("--low-importance-share", type=float, default=0.0, help="share that is not important")
    compared.add_argument("--scheduler", choices=(*fidelities.SCHEDULERS, "both"), default="both", help="vLLM's class")
    compared.add_argument("--json", action="store_true", help="print JSON")
    compared.add_argument("--out", type=Path, help="table of the points (Parquet)")
