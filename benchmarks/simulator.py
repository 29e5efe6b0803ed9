"""Speed of the simulator on the traces: the kernel alone, and from workload to metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from artifact.results import metrics
from artifact.runs.run import arrivals_of
from artifact.runs.sources import trace
from artifact.runs.spec import RunSpec
from artifact.runs.systems import build_system
from niyama import load_card
from niyama.latency import ModelCard
from niyama.sim import Requests, run, simulate

TARGET_REQUESTS_PER_S = {"azure-code-2023": 500_000.0, "azure-conv-2023": 150_000.0}


@contextmanager
def _kernel_stopwatch() -> Iterator[list[float]]:
    """Time the calls of the compiled loop inside `simulate`; the list holds the seconds of each."""
    real, spent = run.run_until, []

    def run_until(*arguments: Any) -> int:
        start = time.perf_counter()
        done = real(*arguments)
        spent.append(time.perf_counter() - start)
        return done

    run.run_until = run_until
    try:
        yield spent
    finally:
        run.run_until = real


def timed_simulation(system: Any, requests: Requests, executor: ModelCard) -> tuple[run.Run, float, float]:
    """The run, and the seconds of kernel and of `simulate` as a whole."""
    with _kernel_stopwatch() as spent:
        start = time.perf_counter()
        done = simulate(system, requests, executor, executor)
        return done, sum(spent), time.perf_counter() - start


def simulator(name: str, load_qps: float, system: str, latency: str, requests: int, repeats: int) -> dict[str, Any]:
    """One trace, system and latency model: the kernel alone, and from workload to metrics."""
    spec = RunSpec(trace=name, system=system, load_qps=load_qps, requests=requests, latency=latency)
    source, card = trace(name), load_card(latency)
    pools = build_system(system, spec.classes)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        arrived = arrivals_of(spec)
        workload_s = time.perf_counter() - start
        done, kernel_s, simulate_s = timed_simulation(pools, arrived, card)
        start = time.perf_counter()
        columns = metrics.request_columns(arrived, done)
        for _, mask in metrics.groups(arrived):
            metrics.summarise(arrived, done, columns, mask)
        metrics_s = time.perf_counter() - start
        times.append((kernel_s, simulate_s - kernel_s, workload_s, metrics_s, workload_s + simulate_s + metrics_s))
    measured = np.array(times[1:])  # the first one compiles and warms up
    best_s, medians = float(measured[:, 0].min()), np.median(measured, axis=0)
    return {
        "trace": source.name,
        "system": system,
        "latency": latency,
        "load_qps": load_qps,
        "requests": requests,
        "iterations": done.iterations,
        "requests_per_s": requests / best_s,
        "requests_per_s_median": requests / float(medians[0]),
        "iterations_per_s": done.iterations / best_s,
        "iterations_per_s_median": done.iterations / float(medians[0]),
        "target_requests_per_s": TARGET_REQUESTS_PER_S.get(name),
        **dict(zip(("kernel_s", "set_up_s", "workload_s", "metrics_s", "end_to_end_s"), medians.tolist(), strict=True)),
    }
