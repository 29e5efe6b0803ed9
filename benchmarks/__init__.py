"""How fast it is: start-up, simulator, one decision, vLLM's scheduler and DynoSim beside it, measured in one go.

Times are wall times. `best` is the least disturbed repeat, `median` the typical one; what a number leaves out is
said where it is taken, and in `LEFT_OUT`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np

from artifact.runs.spec import LATENCY
from benchmarks.decision import Snapshot, decision_state, decisions
from benchmarks.pairs import pairs
from benchmarks.printing import print_bench
from benchmarks.simulator import simulator
from benchmarks.startup import start_up
from benchmarks.vllm_http import over_http
from benchmarks.vllm_steps import WAITING, engine
from niyama import BUILT_IN

__all__ = ["Snapshot", "bench", "decision_state", "decisions", "machine", "print_bench"]

LOADS_QPS = {"azure-code-2023": 3.0, "azure-conv-2023": 3.0, "sharegpt-8k": 1.8}
SYSTEMS = ("niyama", "sarathi-fcfs")
LATENCIES = (LATENCY, "a100-llama3-8b-roofline")
QUEUED = (10, 1_000, 10_000, 100_000)
LEFT_OUT = {
    "simulator": "kernel: set-up, routing, workload and metrics (beside it); all: loading the trace, compiling",
    "decision": "restoring the state before each decision by copying it whole, which leaves little of it in cache",
    "engine": "the API server, the workers and the device: schedule and update_from_output of the engine core alone",
    "servers": "start-up and warm-up; a burst lasts from its first request's time to its last token at the client",
    "dynosim": "both sides: start-up and one replay beforehand; kernel: ours advance, theirs the wall time they report",
}


def bench(
    *,
    requests: int = 10_000,
    repeats: int = 5,
    dynosim: str = "auto",
    workdir: Path = Path("results/bench"),
    loads_qps: Mapping[str, float] = LOADS_QPS,
    queued: Sequence[int] = QUEUED,
    waiting: Sequence[int] | None = WAITING,
    http: int = 1,
) -> dict[str, Any]:
    """Measure everything; JSON values only. dynosim: auto, off, or the path of a Python that has it.

    waiting: queue lengths before vLLM's scheduler, None to leave vLLM out. http: pairs of bursts on real servers, 80 s
    each and 40 s to start; 0 leaves them out. Raises ValueError when there is nothing to measure.
    """
    for name, value in (("requests", requests), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
    if http < 0:
        raise ValueError(f"http is {http}; give at least 0, which leaves servers out")
    return {
        "machine": machine(),
        "left_out": LEFT_OUT,
        "start_up": start_up(repeats),
        "simulator": [
            simulator(name, load_qps, system, latency, requests, repeats)
            for name, load_qps in loads_qps.items()
            for system in SYSTEMS
            for latency in LATENCIES
        ],
        "decision": [row for system in SYSTEMS for n in queued for row in decisions(BUILT_IN[system], n, repeats)],
        "engine": engine(max(1, requests // 20), repeats, workdir, waiting),
        "servers": over_http(http, workdir / "servers"),
        "dynosim": pairs(requests, repeats, dynosim, workdir),
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on; nothing that names the machine."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        cpu = next((value.strip() for key, _, value in fields if key.strip() == "model name"), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
    }
