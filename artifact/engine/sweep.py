"""The server sweep in virtual time: vLLM's own engine on an emulated GPU, in this process, without servers.

Systems, workloads and settings are those of the servers of `artifact.servers`; what is left out is HTTP, the client and
the machine's own time. A run is a function of its arguments, so it gives the same bytes on every machine, however busy.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from artifact.commands.progress import announce
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.engine.fidelity import BACKEND, SCHEDULERS
from artifact.results import tables
from artifact.results.code_hash import code_of
from artifact.runs.rows import group_rows, identity_of, summary_rows
from artifact.runs.run import arrivals_of
from artifact.runs.spec import RunSpec
from artifact.runs.stock import default_batched_tokens
from artifact.servers.command_line import (
    DELIVERY_S,
    EMULATED,
    MAX_MODEL_TOKENS,
    MAX_RUNNING,
    SHAPES,
)  # fmt: skip
from artifact.servers.config import ServerExperiment, load_server_experiment, scaling, server_specs
from artifact.servers.measured import check_fits
from artifact.servers.model_files import model_folder
from artifact.servers.run_cycle import vllm_release
from artifact.servers.simulated import run_simulated
from artifact.servers.split_run import join_runs, part_of
from artifact.servers.sweep import NO_PREDICTOR
from artifact.servers.sweep_cli import described, trace_name
from artifact.servers.systems import PRIORITY, ServerPool, ServerSystem, build_server_system
from niyama import load_card
from niyama.sim import Requests, Run


def sweep_rows(
    experiment: ServerExperiment, system_name: str, seed: int, trace_name: str, models: Path
) -> Iterator[tuple[RunSpec, list[dict[str, Any]]]]:
    """Each load of one system and seed, with its rows: the engine's, then the simulator's on the same requests.

    models: folder for the model's configuration. Raises ConfigError where vLLM is not installed.
    """
    system = build_server_system(system_name, experiment.classes)
    for spec in server_specs(experiment, experiment.virtual(), system, seed, trace_name):
        requests = arrivals_of(spec)
        check_fits(requests, MAX_MODEL_TOKENS)
        who = identity_of(spec, BACKEND, spec.trace, system.replicas)
        who |= {"predictor": spec.predictor_label if system.is_niyama else NO_PREDICTOR}
        engine = group_rows(who, requests, run_engines(spec, system, requests, models))
        # the engine does not tell how often a request was relegated and taken back
        yield spec, [*({**row, "un_relegations": None} for row in engine), *summary_rows(run_simulated(spec))]


def run_engines(spec: RunSpec, system: ServerSystem, requests: Requests, models: Path) -> Run:
    """Serve the requests by an engine per pool, each on its own classes' requests; the raw times of all."""
    parts = []
    for pool in system.pools:
        served = [i for i, c in enumerate(requests.classes) if pool.serves(c.name)]
        rows = np.flatnonzero(np.isin(requests.class_index, served))
        if len(rows) > 0:  # a short run may have no request of a class
            parts.append((rows, _run_engine(spec, system, pool, part_of(requests, rows), models)))
    return join_runs(requests, parts)


def _run_engine(spec: RunSpec, system: ServerSystem, pool: ServerPool, requests: Requests, models: Path) -> Run:
    """One engine, set as the pool's servers are."""
    try:
        from niyama.vllm.emulated.virtual import ASYNC_STOCK, EngineSettings, Traffic, run_virtual
    except ModuleNotFoundError as error:
        raise ConfigError(f"engine-sweep needs vLLM ({error}); run `make setup ENGINE=cpu`") from None
    card, numbers = load_card(spec.latency), dict(system.priorities)
    engine = EngineSettings(
        model_folder(SHAPES[EMULATED], models),
        SCHEDULERS["async"] if system.is_niyama else ASYNC_STOCK,
        {"policy": system.name, "latency": spec.latency, "delivery_s": DELIVERY_S} if system.is_niyama else {},
        policy="priority" if system.name == PRIORITY else "fcfs",
        max_num_batched_tokens=pool.batched_tokens or default_batched_tokens(card.hardware),
        max_num_seqs=MAX_RUNNING,
    )
    priority = [numbers.get(requests.classes[k].name, 0) for k in requests.class_index]
    return run_virtual(Traffic(requests, priority=priority), card, engine, noise=spec.noise, seed=spec.seed)


def sweep_engines(options: argparse.Namespace) -> None:
    """One system and seed at all loads, into a table."""
    experiment = load_server_experiment(options.config, options.latency)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # before vLLM is imported: its start-up says much
    rows, name = [], trace_name(options, experiment)
    with tempfile.TemporaryDirectory() as folder:
        for spec, found in sweep_rows(experiment, options.system, options.seed, name, Path(folder)):
            rows += found
            announce(_describe_point(spec, found))
    about = {
        "backend": BACKEND,
        "code": code_of(options.command, experiment.latency, name),
        "latency_model": asdict(load_card(experiment.latency)),
        "seconds": experiment.virtual().seconds,
        "vllm": vllm_release(),
        "classes": [c.model_dump() for c in experiment.classes],
        "scaling": scaling(experiment.classes),
    }
    if experiment.virtual().noise > 0:
        about["noise"] = experiment.virtual().noise
    tables.write_table(options.out, rows, **about, trace=described(options))


def _describe_point(spec: RunSpec, rows: list[dict[str, Any]]) -> str:
    engine, simulated = (row for row in rows if row["group"] == "all")
    return (
        f"{spec.system}, seed {spec.seed}, {spec.load_qps:g} QPS: {spec.requests} requests, "
        f"{engine['violation_rate']:.1%} violated, simulated {simulated['violation_rate']:.1%}"
    )


def add_commands(verb: Verb) -> None:
    """Add `engine-sweep` to the command line."""
    step = verb("engine-sweep", sweep_engines)
    step.add_argument("--config", type=Path, required=True, help="the servers' configuration, with `virtual_time`")
    step.add_argument("--system", required=True)
    step.add_argument("--seed", type=int, default=0)
    step.add_argument("--described", type=Path, required=True, help="what `trace` wrote")
    step.add_argument("--latency", help="latency model: a name or a card's FILE.json (default: the config's)")
    step.add_argument("--out", type=Path, required=True)
