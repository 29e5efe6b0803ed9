"""From a RunSpec to raw times: load the trace, build the workload, simulate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from artifact.commands.progress import announce
from artifact.config import ConfigError
from artifact.runs.sources import trace
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.runs.systems import build_system
from niyama import load_card
from niyama.sim import Requests, Run, System, simulate, simulate_logged
from niyama.sim.noise import Noise
from traces import Reading, Trace, Workload, build

BACKEND = "sim"
OVERLAPPED_BACKEND = "sim-overlapped"
SIMULATED = (BACKEND, OVERLAPPED_BACKEND)
WARM_UP_REQUESTS = 10


@dataclass(frozen=True)
class Result:
    """A finished run. `kernel_s` is the wall time of the simulation proper, without set-up or metrics."""

    spec: RunSpec
    system: System
    trace_name: str
    requests: Requests
    run: Run
    kernel_s: float

    @property
    def backend(self) -> str:
        """What executed, as results name it."""
        return backend(self.spec)


def backend(spec: RunSpec) -> str:
    """What executes a run, as results name it."""
    return OVERLAPPED_BACKEND if spec.overlapped else BACKEND


def trace_of(spec: RunSpec) -> Trace:
    """The trace of a run."""
    tokenizer = None if spec.tokenizer is None else Path(spec.tokenizer)
    return trace(spec.trace, reading=Reading(spec.columns, spec.time_unit, tokenizer))


def arrivals_of(spec: RunSpec) -> Requests:
    """The requests that arrive in a run. ConfigError where some are too long, and nobody says what to do."""
    return to_requests(spec.classes, workload_of(spec, load_card(spec.latency).kv_tokens))


def workload_of(spec: RunSpec, kv_tokens: int | None) -> Workload:
    """The same without SLOs, for replicas whose KV cache holds that many tokens; None: unknown."""
    source = trace_of(spec)
    workload, longest = build(spec.workload_spec(kv_tokens), source), spec.longest(kv_tokens)
    if source.source == "file" and spec.requests > len(source):
        _say_repeats(source.name, spec.requests, len(source))
    total = workload.prompt_tokens.astype(np.int64) + workload.output_tokens
    if longest is not None and (found := int(np.count_nonzero(total > longest))):
        limit = "max_total_tokens" if longest == spec.max_total_tokens else "the KV cache holds"
        raise ConfigError(
            f"{found} of {spec.requests} requests have up to {total.max()} tokens of prompt and output, more than "
            f"{limit} ({longest} tokens); say --too-long drop or --too-long truncate, or use a replica with more KV"
        )
    return workload


@cache
def _say_repeats(name: str, requests: int, rows: int) -> None:
    """On stderr, once, that rows come more than once: of a user's file that is news."""
    announce(f"{name}: {requests} requests of {rows} rows, each up to {-(-requests // rows)} times")


def to_requests(classes: tuple[ClassSpec, ...], workload: Workload) -> Requests:
    """A workload with the SLOs of its classes, and its tenants where it has them."""
    tenant = workload.extras.tenant
    return Requests(
        tuple(c.qos() for c in classes),
        workload.qos_class,
        workload.arrival_s,
        workload.prompt_tokens,
        workload.output_tokens,
        workload.important,
        tenant=None if tenant is None else tenant.codes,
    )


def run(
    spec: RunSpec,
    *,
    log: bool = False,
    decision_log: Path | None = None,
    started_first: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Simulate one run; with a decision log by an engine in Python, to the same results. started_first: of `simulate`.

    ValueError (ConfigError, TraceError) on anything that makes no sense.
    """
    executor, predictor = load_card(spec.latency), load_card(spec.predictor_name)
    system = build_system(spec.system, spec.classes, spec.replicas, spec.routing, spec.policy)
    requests = arrivals_of(spec)
    noise = Noise(spec.noise, spec.noise_bursts, spec.stalls)
    options: dict[str, Any] = {"noise": noise, "started_first": started_first, "log": log, "progress": progress}
    options |= {name: getattr(spec, name) for name in ("seed", "overlapped", "correct", "delivery_s")}
    start = time.perf_counter()
    if decision_log is None:
        done = simulate(system, requests, executor, predictor, **options)
    else:
        done = simulate_logged(system, requests, executor, predictor, decision_log, **options)
    return Result(spec, system, trace_of(spec).name, requests, done, time.perf_counter() - start)


def warm_up_like(spec: RunSpec, *, decision_log: bool = False) -> None:
    """Run a few requests of `spec`, so that its kernel is compiled and loaded: that is no part of a run's time."""
    arrivals_of(spec)  # a fault is one of the whole run, not of the few
    few = spec.model_copy(update={"requests": min(spec.requests, WARM_UP_REQUESTS)})
    with tempfile.TemporaryDirectory() as folder:
        run(few, decision_log=Path(folder) / "log" if decision_log else None)


def warm_up() -> None:
    """Run something small, so that the kernel is compiled and in the cache."""
    run(RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=1.0, requests=10))
