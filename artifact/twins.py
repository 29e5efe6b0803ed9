"""The simulator's counterpart of each server system, for the same workload: engine and simulator at a glance."""

from __future__ import annotations

import time
from dataclasses import replace

from artifact.config import ClassSpec, RunSpec
from artifact.runs import Result, to_requests, trace
from artifact.servers import systems as servers
from artifact.servers.command import A100_BATCHED_TOKENS
from niyama import BUILT_IN, load_card
from niyama.rules import rank_rule
from niyama.sim import Pool, System, shared, simulate
from traces import build

STOCK = replace(BUILT_IN["sarathi-fcfs-2048"], max_chunk_tokens=A100_BATCHED_TOKENS)
SECONDS_APART = 1e6  # longer than any run: an earlier class comes first whatever the arrival


@rank_rule
def by_class_then_arrival(job, alpha):
    """vLLM's priority queue: the more urgent class first, arrival within a class."""
    urgency = 0.0 if job.interactive else job.deadline_s - job.arrival_s
    return urgency * SECONDS_APART + job.arrival_s


def twin(name: str, classes: tuple[ClassSpec, ...], replicas: tuple[int, ...]) -> System:
    """The simulated system that does what the server system `name` does, as nearly as the simulator can.

    vLLM finishes a started prompt before a more urgent one; the simulator's priority twin lets that one overtake.
    """
    if name == servers.SILO:
        pools = servers.build_server_system(name, classes, replicas).pools
        tokens = {servers.SILO_INTERACTIVE_TOKENS: "sarathi-fcfs", servers.SILO_BATCH_TOKENS: "sarathi-fcfs-2048"}
        return System(name, tuple(Pool(BUILT_IN[tokens[p.batched_tokens]], p.replicas, p.classes) for p in pools))
    policy = {
        servers.FCFS: STOCK,
        servers.PRIORITY: replace(STOCK, name=servers.PRIORITY, rank=by_class_then_arrival),
        servers.NIYAMA: BUILT_IN["niyama"],
    }[name]
    return shared(policy, *replicas)


def run_twin(spec: RunSpec) -> Result:
    """Simulate the twin of `spec.system` on `spec`'s workload."""
    system, card, source = twin(spec.system, spec.classes, spec.replicas), load_card(spec.latency), trace(spec.trace)
    requests = to_requests(spec, build(spec.workload_spec(), source))
    start = time.perf_counter()
    done = simulate(system, requests, card, card, seed=spec.seed)
    return Result(spec, system, source.name, requests, done, time.perf_counter() - start)
