"""`simulate`, `capacity` and `bench`: the commands of one point, and what they print."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from artifact import capacity as capacities_of
from artifact import metrics, pipeline
from artifact import sweep as sweeps
from artifact.cli import Verb
from artifact.config import LATENCY, MOST_REPLICAS, ConfigError, RunSpec, load_classes, parse
from artifact.progress import requests_done, run_started
from artifact.runs import BACKEND, run, warm_up_like
from artifact.words import describe_capacity, print_point


def add_commands(verb: Verb) -> None:
    """Add all three to the command line."""
    one = verb("simulate", simulate)
    one.add_argument("--load", type=float, required=True, help="requests/s to the whole system")
    one.add_argument("--seed", type=int, default=0, help="seed of everything random")
    one.add_argument("--out", type=Path, help="folder for requests.parquet and iterations.parquet")
    one.add_argument("--overlapped", action="store_true", help="plan ahead, as asynchronous vLLM does")
    one.add_argument("--decision-log", type=Path, help="file for every decision, to `replay` (one replica)")
    _run_options(one, 39_000)
    search = verb("capacity", capacity)
    search.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 (default 3)")
    search.add_argument("--step", type=float, default=0.05, help="grid of loads, requests/s (default 0.05)")
    _run_options(search, 39_000)
    speed = verb("bench", bench)
    speed.add_argument("--requests", type=int, default=10_000)
    speed.add_argument("--repeats", type=int, default=5)
    speed.add_argument("--dynosim", default="auto", help="auto (own environment), off, or a python that has it")
    speed.add_argument(
        "--http", type=int, default=1, metavar="PAIRS", help="bursts on two vLLM servers: 80 s each; 0: none"
    )
    speed.add_argument("--json", action="store_true", help="print JSON")


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
        return json.loads(text, object_pairs_hook=partial(_once, flag))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{flag} is {text!r}, which is not JSON ({error.msg})") from None


def _once(flag: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which the last of a key's values would be taken."""
    for name, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise ConfigError(f"{flag} has {name!r} {number} times; give it once")
    return dict(pairs)


def simulate(options: argparse.Namespace) -> None:
    """One point."""
    spec = _spec(options, load_qps=options.load, seed=options.seed, overlapped=options.overlapped)
    if options.decision_log is not None:
        options.decision_log.parent.mkdir(parents=True, exist_ok=True)
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
