"""The commands around real servers: serve, load and crosscheck."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from artifact.commands.progress import announce
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.results import metrics
from artifact.runs.options import ARRIVING, add_load, add_run_options, integers, spec_of
from artifact.runs.run import to_requests, workload_of
from artifact.runs.spec import PAPER_MIX, ClassSpec, RunSpec, load_classes
from artifact.servers.command_line import Engine, backend_of
from artifact.servers.fleet import START_TIMEOUT_S, running
from artifact.servers.keeping import Keeper
from artifact.servers.measured import Client, Measured, measure
from artifact.servers.measured_files import write_measured
from artifact.servers.process import served_models
from artifact.servers.stopping import terminated_like_interrupted
from artifact.servers.systems import SERVER_SYSTEMS, build_server_system, by_urgency
from traces import Workload, is_workload, read_workload

WATCH_PERIOD_S = 1.0
LOAD_REQUESTS = 100


def serve(options: argparse.Namespace) -> None:
    """Bring a system up and keep it up until interrupted: a process that ends is restarted, and the others go on."""
    classes = load_classes(options.classes) if options.classes else PAPER_MIX
    sizes = integers("--replicas", options.replicas) if options.replicas else None
    system = build_server_system(options.system, classes, sizes)
    engine = Engine(backend_of(options.backend), options.latency, options.model)
    announce(f"starting {system.replicas} {engine.backend} server(s) of {system.name}; logs: {options.folder}/logs")
    with (
        terminated_like_interrupted(),
        running(system, engine, classes, options.folder, port=options.port) as fleet,
    ):
        print(f"{fleet.url}/v1  model {fleet.model}  (Ctrl-C stops it)", flush=True)
        print(f"metrics: {'  '.join(f'{server.url}/metrics' for server in fleet.servers)}", flush=True)
        keeper = Keeper(fleet.groups, announce, START_TIMEOUT_S)
        while True:
            time.sleep(WATCH_PERIOD_S)
            keeper.look()


def cross_check(options: argparse.Namespace) -> int:
    """Our client against `vllm bench serve` on one server: 1 when they disagree."""
    from artifact.servers.crosscheck import TOLERANCE, crosscheck

    spec = RunSpec(
        trace=options.trace, system=options.system, load_qps=options.load, requests=options.requests, seed=options.seed
    )
    with terminated_like_interrupted():
        found = crosscheck(spec, Engine(backend_of(options.backend), spec.latency), options.folder)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name in ("ttft", "itl"):
            ours, bench, apart = (found[key] for key in (f"ours_{name}_ms", f"bench_{name}_ms", f"{name}_difference"))
            print(f"{name.upper()} median: {ours:.2f} ms, vllm bench serve {bench:.2f} ms, {apart:.2%} apart")
        print("agrees" if found["agrees"] else f"DISAGREES by more than {TOLERANCE:.0%}")
    return 0 if found["agrees"] else 1


def load(options: argparse.Namespace) -> None:
    """Replay a workload on servers that are up already, and print what came out."""
    classes, workload = what_to_send(options)
    requests = to_requests(classes, workload)
    models = served_models(options.url)
    model = options.model or models[0]
    if model not in models:
        raise ConfigError(f"--model is {model!r}; {options.url} serves {', '.join(models)}")
    priorities = {c.name: i for i, c in enumerate(by_urgency(classes))} if options.priority else {}
    client = Client(options.url, model, priorities, options.seed, options.max_lag_ms / 1e3)
    with terminated_like_interrupted():
        measured = measure(client, requests)
    if options.out is not None:
        about = {"classes": [c.model_dump() for c in classes], "backend": "server", "lag_p99_s": measured.lag_p99_s}
        write_measured(options.out / "requests.parquet", measured, **about, trace=workload.trace_name)
    print(json.dumps(load_answer(measured), indent=1))


def what_to_send(options: argparse.Namespace) -> tuple[tuple[ClassSpec, ...], Workload]:
    """A trace as `simulate` plays it; of --workload FILE each row at its own time. ConfigError or TraceError."""
    if (options.workload is None) == (options.trace is None):
        raise ConfigError("give --trace, or --workload FILE, which is --trace FILE --replay")
    if options.workload is not None:
        if options.workload.suffix == ".parquet" and is_workload(options.workload):
            return load_classes(options.classes) if options.classes else PAPER_MIX, read_workload(options.workload)
        options.trace, options.replay = str(options.workload), True
    if options.too_long in ("drop", "truncate") and options.max_total_tokens is None:
        raise ConfigError(f"--too-long is {options.too_long}; say from which length on: --max-total-tokens N")
    more = {"system": "niyama", "load_qps": options.load, "seed": options.seed}
    spec = spec_of(options, simulated=False, **more)
    return spec.classes, workload_of(spec, None)


def load_answer(measured: Measured) -> dict[str, Any]:
    """The metrics of a measured run by group; null where a client cannot know."""
    requests, run = measured.requests, measured.run
    columns = metrics.request_columns(requests, run)
    unseen = {"preemptions": None} | ({"relegated_share": None} if measured.relegated is None else {})
    by_group = {n: metrics.summarise(requests, run, columns, mask) | unseen for n, mask in metrics.groups(requests)}
    return {"requests": len(requests), "lag_p99_s": measured.lag_p99_s, "groups": by_group}


def add_commands(verb: Verb) -> None:
    """Add the commands of this module to the command line; `verb` makes one."""
    up = verb("serve", serve)
    up.add_argument("--system", required=True, help=f"one of {', '.join(SERVER_SYSTEMS)}")
    up.add_argument("--backend", default="auto", help="gpu, cpu, emulated or auto (default)")
    up.add_argument("--replicas", help="servers per pool, such as 2 or 1,2 (default one each)")
    up.add_argument("--model", help="folder or name of a model with weights (default: a shape without)")
    up.add_argument("--classes", type=Path, help="YAML list of QoS classes (default: the paper's Table 3)")
    up.add_argument("--latency", default="a100-llama3-8b-linear", help="latency model of emulator and predictor")
    up.add_argument("--port", type=int, help="port of the URL (default: a free one)")
    up.add_argument("--folder", type=Path, default=Path("results/serve"), help="logs, model files, configuration")
    _add_clients(verb)


def _add_clients(verb: Verb) -> None:
    """The commands that only send load."""
    send = verb("load", load)
    send.add_argument("--url", required=True, help="such as http://127.0.0.1:8000, without /v1")
    send.add_argument("--workload", type=Path, help="a file such as `python -m traces convert` writes, as recorded")
    add_load(send)
    add_run_options(send, LOAD_REQUESTS, ARRIVING)
    send.add_argument("--model", help="served model name (default: the server's first)")
    send.add_argument("--priority", action="store_true", help="send vLLM's priority number, 0 most urgent")
    send.add_argument("--seed", type=int, default=0, help="of the prompts' tokens")
    send.add_argument("--max-lag-ms", type=float, default=5.0, help="client lag (p99) that voids the run (default 5)")
    send.add_argument("--out", type=Path, help="folder for requests.parquet")
    check = verb("crosscheck", cross_check)
    check.add_argument("--trace", default="azure-code-2023")
    check.add_argument("--system", default="vllm-fcfs", help="vllm-fcfs or niyama: a system of one server")
    check.add_argument("--load", type=float, default=2.5, help="requests/s (default 2.5)")
    check.add_argument("--requests", type=int, default=150)
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--backend", default="auto")
    check.add_argument("--folder", type=Path, default=Path("results/crosscheck"))
    check.add_argument("--json", action="store_true", help="print JSON")
