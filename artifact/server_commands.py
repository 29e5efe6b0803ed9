"""The commands around real servers: serve, load, and the steps of the server sweep."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifact import metrics, tables
from artifact import sweep as sweeps
from artifact.commands import integers
from artifact.config import PAPER_MIX, ConfigError, RunSpec, load_classes
from artifact.measured import Client, Measured, measure
from artifact.measured_files import write_measured
from artifact.server_config import ServerExperiment, load_server_experiment, scaling, server_specs
from artifact.server_sweep import announce, measure_life, plan_life, vllm_version
from artifact.servers import Engine, build_server_system, detect_backend, running
from artifact.servers.process import served_models
from artifact.servers.systems import by_urgency
from artifact.twins import run_twin
from niyama.sim import Requests
from traces import Workload, read_jsonl, read_workload

WATCH_PERIOD_S = 1.0


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that no server is left behind.

    Only the first counts, for the rest of the process's life: `timeout` sends two, and the second would interrupt the
    tidying up.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)


def serve(options: argparse.Namespace) -> None:
    """Bring a system up and keep it up until interrupted, or until one of its processes dies."""
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
        while True:
            time.sleep(WATCH_PERIOD_S)
            fleet.check_alive()


def backend_of(choice: str) -> str:
    """`auto`: what this machine has."""
    return detect_backend() if choice == "auto" else choice


def sweep_servers(options: argparse.Namespace) -> None:
    """One system's measured points, all loads, in one server life."""
    experiment = load_server_experiment(options.config)
    form, backend = experiment.form(options.form), backend_of(options.backend)
    name = _trace_name(options, experiment)
    life = plan_life(experiment, form, options.system, options.seed, name, backend, options.folder)
    with terminated_like_interrupted():
        rows = measure_life(life, announce)
    tables.write_table(options.out, rows, **_about(experiment, options.form, backend), trace=_described(options))


def simulate_servers(options: argparse.Namespace) -> None:
    """The same points of all systems, simulated."""
    experiment = load_server_experiment(options.config)
    form, name, rows = experiment.form(options.form), _trace_name(options, experiment), []
    for system_name in experiment.systems:
        system = build_server_system(system_name, experiment.classes)
        for seed in range(form.seeds):
            for spec in server_specs(experiment, form, system, seed, name):
                rows += sweeps.summary_rows(run_twin(spec))
    about = _about(experiment, options.form, sweeps.BACKEND)
    tables.write_table(options.out, rows, **about, trace=_described(options))


def merge_servers(options: argparse.Namespace) -> None:
    """Measured and simulated rows in one table."""
    parts = [tables.read_table(path) for path in options.tables]
    abouts = [tables.provenance(part) for part in parts]
    measured = {about["backend"] for about in abouts} - {sweeps.BACKEND}
    if len(measured) != 1:
        raise tables.ResultError(f"{options.out}: parts are of backends {sorted(measured)}; delete them and run again")
    about = next(about for about in abouts if about["backend"] in measured)
    about.pop("schema_version")
    tables.write_table(options.out, tables.joined(parts), **about, traces={about["trace"]["trace"]: about["trace"]})


def _about(experiment: ServerExperiment, form: str, backend: str) -> dict[str, Any]:
    """Provenance of a part."""
    return {
        "backend": backend,
        "latency": experiment.latency,
        "form": form,
        "seconds": experiment.form(form).seconds,
        "vllm": vllm_version(),
        "classes": [c.model_dump() for c in experiment.classes],
        "scaling": scaling(experiment.classes),
    }


def _described(options: argparse.Namespace) -> dict[str, Any]:
    return json.loads(options.described.read_text())


def _trace_name(options: argparse.Namespace, experiment: ServerExperiment) -> str:
    """The trace, or its synthetic twin where its description says so."""
    name = _described(options)["trace"]
    if not name.startswith(experiment.trace):
        raise ConfigError(f"--described is about {name!r}, and {options.config} names {experiment.trace!r}")
    return name


def cross_check(options: argparse.Namespace) -> int:
    """Our client against `vllm bench serve` on one server: 1 when they disagree."""
    from artifact.crosscheck import TOLERANCE, crosscheck

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
    classes = load_classes(options.classes) if options.classes else PAPER_MIX
    workload = read_load(options.workload, [c.name for c in classes])
    requests = Requests(
        tuple(c.qos() for c in classes), workload.qos_class, workload.arrival_s, workload.prompt_tokens,
        workload.output_tokens, workload.important,
    )  # fmt: skip
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


def read_load(path: Path, class_names: list[str]) -> Workload:
    """A workload file: `.parquet`, or Mooncake-style `.jsonl` whose classes are `class_names`. TraceError otherwise."""
    if path.suffix == ".parquet":
        return read_workload(path)
    return read_jsonl(path, class_names, trace_name=path.stem)


def load_answer(measured: Measured) -> dict[str, Any]:
    """The metrics of a measured run by group; null where a client cannot know."""
    requests, run = measured.requests, measured.run
    columns = metrics.request_columns(requests, run)
    unseen = {"preemptions": None} | ({"relegated_share": None} if measured.relegated is None else {})
    by_group = {n: metrics.summarise(requests, run, columns, mask) | unseen for n, mask in metrics.groups(requests)}
    return {"requests": len(requests), "lag_p99_s": measured.lag_p99_s, "groups": by_group}


def add_commands(verbs: Any, verb: Any) -> None:
    """Add the commands of this module to the command line; `verb` makes one."""
    up = verb(verbs, "serve", serve, "Bring up a system of vLLM servers, and a router where it has several.")
    up.add_argument("--system", required=True, help="vllm-fcfs, vllm-priority, silo or niyama")
    up.add_argument("--backend", default="auto", help="gpu, cpu, emulated or auto (default)")
    up.add_argument("--replicas", help="servers per pool, such as 2 or 1,2 (default one each)")
    up.add_argument("--model", help="folder or name of a model with weights (default: a shape without)")
    up.add_argument("--classes", type=Path, help="YAML list of QoS classes (default: the paper's Table 3)")
    up.add_argument("--latency", default="a100-llama3-8b-linear", help="latency model of emulator and predictor")
    up.add_argument("--port", type=int, help="port of the URL (default: a free one)")
    up.add_argument("--folder", type=Path, default=Path("results/serve"), help="logs, model files, configuration")
    _add_clients(verbs, verb)
    for name, run, text in (
        ("server-sweep", sweep_servers, "Measure one system of the server sweep: one server life, all loads."),
        ("server-twins", simulate_servers, "Simulate what the server sweep measures."),
    ):
        step = verb(verbs, name, run, text)
        step.add_argument("--config", type=Path, required=True)
        step.add_argument("--form", required=True, help="short or full")
        step.add_argument("--described", type=Path, required=True, help="what `trace` wrote")
        step.add_argument("--out", type=Path, required=True)
        if name == "server-sweep":
            step.add_argument("--system", required=True)
            step.add_argument("--seed", type=int, default=0)
            step.add_argument("--backend", default="auto")
            step.add_argument(
                "--folder", type=Path, required=True, help="raw times of each load, logs; kept on a rerun"
            )
    join = verb(verbs, "server-table", merge_servers, "Join measured and simulated parts.")
    join.add_argument("tables", type=Path, nargs="+")
    join.add_argument("--out", type=Path, required=True)


def _add_clients(verbs: Any, verb: Any) -> None:
    """The commands that only send load."""
    send = verb(verbs, "load", load, "Replay a workload file, open loop, on servers that are up.")
    send.add_argument("--url", required=True, help="such as http://127.0.0.1:8000, without /v1")
    send.add_argument("--workload", type=Path, required=True, help=".jsonl or .parquet, as `python -m traces` writes")
    send.add_argument("--classes", type=Path, help="YAML list of QoS classes (default: the paper's Table 3)")
    send.add_argument("--model", help="served model name (default: the server's first)")
    send.add_argument("--priority", action="store_true", help="send vLLM's priority number, 0 most urgent")
    send.add_argument("--seed", type=int, default=0, help="of the prompts' tokens")
    send.add_argument("--max-lag-ms", type=float, default=5.0, help="client lag (p99) that voids the run (default 5)")
    send.add_argument("--out", type=Path, help="folder for requests.parquet")
    check = verb(verbs, "crosscheck", cross_check, "Compare our client with `vllm bench serve` on one server.")
    check.add_argument("--trace", default="azure-code-2023")
    check.add_argument("--system", default="vllm-fcfs", help="vllm-fcfs or niyama: a system of one server")
    check.add_argument("--load", type=float, default=2.5, help="requests/s (default 2.5)")
    check.add_argument("--requests", type=int, default=150)
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--backend", default="auto")
    check.add_argument("--folder", type=Path, default=Path("results/crosscheck"))
    check.add_argument("--json", action="store_true", help="print JSON")
