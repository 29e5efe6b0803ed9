"""The operators' scenario on vLLM's own engine in virtual time: one replica, whose scheduler is stock or Niyama's."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artifact.commands.progress import announce
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.engine.fidelity import BACKEND, SCHEDULERS
from artifact.experiments.config import load_experiments
from artifact.experiments.operators import ALONE, TRACE, arriving, classes_of, measured
from artifact.experiments.panel_config import Operators
from artifact.results import tables
from artifact.results.code_hash import code_of
from artifact.runs.spec import PREDICTOR_IS_EXECUTOR
from artifact.runs.stock import VLLM_FCFS, VLLM_PRIORITY, default_batched_tokens
from artifact.servers.command_line import EMULATED, MAX_RUNNING, SHAPES
from artifact.servers.model_files import model_folder
from artifact.servers.run_cycle import vllm_release
from artifact.servers.sweep import NO_PREDICTOR
from artifact.servers.systems import NIYAMA_SYSTEMS, NIYAMA_TOKENS, build_server_system
from niyama import load_card
from niyama.sim import Requests, Run

SYSTEMS = (ALONE, VLLM_FCFS, VLLM_PRIORITY, *NIYAMA_SYSTEMS)


def engine_rows(scenario: Operators, system: str, latency: str, seed: int, models: Path) -> dict[str, Any]:
    """The row of one system under one seed. ConfigError for one that no engine alone is, such as a gateway."""
    if system not in SYSTEMS:
        raise ConfigError(f"--system is {system!r}; an engine in virtual time is one of {', '.join(SYSTEMS)}")
    requests, card = arriving(scenario, seed, system == ALONE), load_card(latency)
    who = {"backend": BACKEND, "trace": TRACE, "system": system, "latency": card.name}
    who |= {"predictor": f"{card.name} ({PREDICTOR_IS_EXECUTOR})" if system in NIYAMA_SYSTEMS else NO_PREDICTOR}
    run = _run(scenario, system, latency, seed, requests, models)
    own = {"replicas": 1, "seed": seed, "requests": len(requests), **measured(scenario, requests, run, card.gpus)}
    return {**who, **own}


def _run(scenario: Operators, system: str, latency: str, seed: int, requests: Requests, models: Path) -> Run:
    try:
        from niyama.vllm.emulated.virtual import ASYNC_STOCK, EngineSettings, Traffic, run_virtual
    except ModuleNotFoundError as error:
        raise ConfigError(f"engine-operators needs vLLM ({error}); run `make setup ENGINE=cpu`") from None
    card, niyama = load_card(latency), system in NIYAMA_SYSTEMS
    numbers: dict[str, int] = {}
    if system == VLLM_PRIORITY:
        numbers = dict(build_server_system(VLLM_PRIORITY, classes_of(scenario)).priorities)
    engine = EngineSettings(
        model_folder(SHAPES[EMULATED], models),
        SCHEDULERS["async"] if niyama else ASYNC_STOCK,
        {"policy": system, "latency": latency} if niyama else {},
        policy="priority" if system == VLLM_PRIORITY else "fcfs",
        max_num_batched_tokens=NIYAMA_TOKENS if niyama else default_batched_tokens(card.hardware),
        max_num_seqs=MAX_RUNNING,
    )
    priority = [numbers.get(requests.classes[k].name, 0) for k in requests.class_index]
    return run_virtual(Traffic(requests, priority=priority), card, engine, seed=seed)


def run_operators(options: argparse.Namespace) -> None:
    """All systems of the scenario that an engine alone is, into a table."""
    scenario = load_experiments(options.config).panels.operators
    if scenario is None:
        raise ConfigError(f"{options.config}: panels has no operators; add it, as in workflows/config/paper.yaml")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # before vLLM is imported: its start-up says much
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for system in filter(SYSTEMS.__contains__, scenario.systems):
                rows.append(engine_rows(scenario, system, options.latency, seed, Path(folder)))
                announce(f"{system}, seed {seed}: TTFT p95 {rows[-1]['ttft_p95_s']:.3f} s")
    tables.write_table(
        options.out,
        rows,
        backend=BACKEND,
        code=code_of(options.command, options.latency, settings=scenario),
        latency_model=asdict(load_card(options.latency)),
        vllm=vllm_release(),
    )


def add_commands(verb: Verb) -> None:
    """Add `engine-operators` to the command line."""
    step = verb("engine-operators", run_operators)
    step.add_argument("--config", type=Path, required=True, help="an experiment file with `panels: operators`")
    step.add_argument("--latency", required=True, help="latency model: a name or a card's FILE.json")
    step.add_argument("--seeds", type=int, default=1, help="seeds 0 .. N-1 (default 1)")
    step.add_argument("--out", type=Path, required=True)
