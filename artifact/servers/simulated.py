"""The simulator's counterpart of each server system, for the same workload: to compare engine and simulator.

Every server runs vLLM's asynchronous engine, so every simulated system plans a step ahead (`niyama.sim.overlapped`),
but on the CPU, where vLLM's engine is synchronous. All run started prompts first. Niyama's meets deadlines as much
earlier as its server does.
"""

from __future__ import annotations

import time
from dataclasses import replace

from artifact.runs.rows import summary_rows
from artifact.runs.run import Result, arrivals_of, trace_of
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.runs.stock import stock_policy
from artifact.servers import systems as servers
from artifact.servers.command_line import DELIVERY_S, EMULATED
from artifact.servers.config import EngineForm, ServerExperiment, server_specs
from niyama import BUILT_IN, QoSClass, load_card
from niyama.latency import is_card_file
from niyama.sim import Pool, System, shared, simulate


def simulated_system(name: str, classes: tuple[ClassSpec, ...], replicas: tuple[int, ...], hardware: str) -> System:
    """The simulated system that does what the server system `name` does on that hardware, as nearly as it can."""
    if name == servers.SILO:
        pools = servers.build_server_system(name, classes, replicas).pools
        tokens = {servers.SILO_INTERACTIVE_TOKENS: "sarathi-fcfs", servers.SILO_BATCH_TOKENS: "sarathi-fcfs-2048"}
        return System(name, tuple(Pool(BUILT_IN[tokens[p.batched_tokens]], p.replicas, p.classes) for p in pools))
    policies = {
        **{stock: stock_policy(stock, hardware) for stock in (servers.FCFS, servers.PRIORITY)},
        **{niyama: BUILT_IN[niyama] for niyama in servers.NIYAMA_SYSTEMS},
    }
    return shared(policies[name], *replicas)


def can_be_simulated(backend: str, latency: str) -> bool:
    """Whether servers on `backend` take the time that the latency model says: emulated, or a card's file.

    A card that ships is of a GPU elsewhere; a file is of this machine, by `python -m artifact fit`.
    """
    return backend == EMULATED or is_card_file(latency)


def simulated_rows(
    experiment: ServerExperiment, form: EngineForm, trace_name: str, *, overlapped: bool
) -> list[dict[str, object]]:
    """The summary rows of all points of an experiment, simulated; overlapped: the engines plan a step ahead."""
    rows = []
    for name in experiment.systems:
        system = servers.build_server_system(name, experiment.classes)
        for seed in range(form.seeds):
            for spec in server_specs(experiment, form, system, seed, trace_name):
                rows += summary_rows(run_simulated(spec, overlapped=overlapped))
    return rows


def run_simulated(spec: RunSpec, *, overlapped: bool = True) -> Result:
    """Simulate the counterpart of `spec.system` on `spec`'s workload."""
    spec = spec.model_copy(update={"overlapped": overlapped})
    card, source = load_card(spec.latency), trace_of(spec)
    system = simulated_system(spec.system, spec.classes, spec.replicas, card.hardware)
    requests = arrivals_of(spec)
    planned = requests
    if spec.system in servers.NIYAMA_SYSTEMS:
        planned = replace(requests, classes=tuple(_earlier(c) for c in requests.classes))
    start = time.perf_counter()
    options = {"noise": spec.noise, "seed": spec.seed, "correct": True}
    done = simulate(system, planned, card, card, overlapped=overlapped, started_first=True, **options)
    return Result(spec, system, source.name, requests, done, time.perf_counter() - start)


def _earlier(promise: QoSClass) -> QoSClass:
    """The class as Niyama's server plans it."""
    field = "ttft_s" if promise.interactive else "ttlt_s"
    return replace(promise, **{field: promise.deadline_slo_s - DELIVERY_S})
