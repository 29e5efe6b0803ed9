"""The commands of the server sweep: one run cycle, the same runs simulated, the table of both, and what failed.

With `--note-failure` a run cycle that fails leaves a part that says why, and what it had measured before: table and
figure are made of what there is. The pipeline fails for it when it ends (`endings.end`), and the next run tries it
again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artifact.commands.progress import announce
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.results import tables
from artifact.results.code_hash import code_of, joined_code
from artifact.results.descriptions import described_in, read_description
from artifact.runs import run as runs
from artifact.servers.command_line import CPU, GPU, backend_of
from artifact.servers.config import ServerExperiment, load_server_experiment, scaling
from artifact.servers.measured import RunFailed
from artifact.servers.process import ServerError
from artifact.servers.run_cycle import plan_run_cycle, vllm_version
from artifact.servers.simulated import can_be_simulated, simulated_rows
from artifact.servers.stopping import terminated_like_interrupted
from artifact.servers.sweep import finished_rows, measure_in_turn, measure_run_cycle
from niyama import load_card


def sweep_servers(options: argparse.Namespace) -> None:
    """One system's measured points, all loads, in one start of its servers."""
    experiment = load_server_experiment(options.config, options.latency)
    form, backend = experiment.form(options.form), backend_of(options.backend)
    name = trace_name(options, experiment)
    cycle = plan_run_cycle(
        experiment, form, options.system, options.seed, name, backend, options.folder, options.devices
    )
    about = {**_about(experiment, options.form, backend), "gpus": list(cycle.gpus), "pools_in_turn": cycle.in_turn}
    about |= {"vllm": vllm_version(), "code": code_of(options.command, experiment.latency, name)}
    try:
        with terminated_like_interrupted():
            rows = measure_run_cycle(cycle, announce)
    except (ServerError, RunFailed) as error:
        if not options.note_failure:
            raise
        announce(f"error: {error}")
        rows = finished_rows(cycle)
        about["failures"] = [{"part": f"{options.system}, seed {options.seed}", "reason": str(error)}]
    tables.write_table(options.out, rows, **about, trace=described(options))


def sweep_in_turn(options: argparse.Namespace) -> None:
    """All seeds of a form, its systems in turn; `server-sweep` then makes the table of each."""
    experiment = load_server_experiment(options.config, options.latency)
    form, backend = experiment.form(options.form), backend_of(options.backend)
    name = trace_name(options, experiment)
    cycles = [
        plan_run_cycle(experiment, form, system, seed, name, backend, options.folder / f"{system}-{seed}")
        for seed in range(form.seeds)
        for system in experiment.systems
    ]
    if backend == GPU:
        raise ConfigError(
            f"{options.config}: systems_in_turn needs all servers at once, and a GPU holds one; remove it"
        )
    with terminated_like_interrupted():
        measure_in_turn(cycles, announce)
    options.out.write_text("measured in turn: " + ", ".join(experiment.systems) + "\n")


def simulate_servers(options: argparse.Namespace) -> None:
    """The same points of all systems, simulated; no rows where the latency model is not of the backend."""
    experiment = load_server_experiment(options.config, options.latency)
    form, name = experiment.form(options.form), trace_name(options, experiment)
    backend = backend_of(options.backend)
    overlapped = backend != CPU
    simulated = can_be_simulated(backend, experiment.latency)
    rows = simulated_rows(experiment, form, name, overlapped=overlapped) if simulated else []
    about = _about(experiment, options.form, runs.OVERLAPPED_BACKEND if overlapped else runs.BACKEND)
    about["code"] = code_of(options.command, experiment.latency, name)
    tables.write_table(options.out, rows, **about, trace=described(options))


def merge_servers(options: argparse.Namespace) -> None:
    """Measured and simulated rows in one table."""
    parts = [tables.read_table(path, "tables that our commands wrote") for path in options.tables]
    abouts = [tables.provenance(part) for part in parts]
    for path, about in zip(options.tables, abouts, strict=True):
        described_in(path, about)
    measured = [about for about in abouts if about.get("backend") not in runs.SIMULATED]
    for name in ("backend", "gpus", "latency_model", "vllm"):
        values = {json.dumps(about.get(name)) for about in measured}
        if len(values) != 1:
            found = ", ".join(sorted(values)) or "none"
            raise tables.ResultError(f"{options.out}: {name} of the parts is {found}; delete them and run again")
    about = {**measured[0], **joined_code({str(p): a.get("code") for p, a in zip(options.tables, abouts, strict=True)})}
    about = {**about, "pools_in_turn": any(about.get("pools_in_turn") for about in measured)}
    about.pop("schema_version")
    about["failures"] = [failure for part in measured for failure in part.get("failures", ())]
    tables.write_table(options.out, tables.joined(parts), **about, traces={about["trace"]["trace"]: about["trace"]})


def _about(experiment: ServerExperiment, form: str, backend: str) -> dict[str, Any]:
    """Provenance of a part."""
    return {
        "backend": backend,
        "latency_model": asdict(load_card(experiment.latency)),
        "form": form,
        "seconds": experiment.form(form).seconds,
        "max_lag_ms": experiment.form(form).max_lag_ms,
        "classes": [c.model_dump() for c in experiment.classes],
        "scaling": scaling(experiment.classes),
    }


def described(options: argparse.Namespace) -> dict[str, Any]:
    """What `trace` wrote of the trace."""
    return read_description(options.described)


def trace_name(options: argparse.Namespace, experiment: ServerExperiment) -> str:
    """The trace, or the synthetic one where its description says so."""
    name = described(options)["trace"]
    if not name.startswith(experiment.trace):
        raise ConfigError(f"--described is about {name!r}, and {options.config} names {experiment.trace!r}")
    return name


def add_commands(verb: Verb) -> None:
    """Add the steps to the command line; `verb` makes one."""
    for name, run in (
        ("server-sweep", sweep_servers),
        ("server-turns", sweep_in_turn),
        ("server-simulated", simulate_servers),
    ):
        step = verb(name, run)
        step.add_argument("--config", type=Path, required=True)
        step.add_argument("--form", required=True, help="short or full")
        step.add_argument("--described", type=Path, required=True, help="what `trace` wrote")
        step.add_argument("--out", type=Path, required=True)
        step.add_argument("--latency", help="latency model: a name or a card's FILE.json (default: the config's)")
        step.add_argument("--backend", default="auto", help="gpu, cpu, emulated or auto (default)")
        if name == "server-turns":
            step.add_argument("--folder", type=Path, required=True, help="of the raw times of all systems")
        if name == "server-sweep":
            step.add_argument("--system", required=True)
            step.add_argument("--seed", type=int, default=0)
            step.add_argument(
                "--devices", type=int, help="most servers at a time; pools then take turns (default: the GPUs, or all)"
            )
            step.add_argument(
                "--folder", type=Path, required=True, help="raw times of each load, logs; kept on a rerun"
            )
            step.add_argument(
                "--note-failure", action="store_true", help="write a failure into --out, for the pipeline to report"
            )
    step = verb("server-table", merge_servers)
    step.add_argument("tables", type=Path, nargs="+")
    step.add_argument("--out", type=Path, required=True)
