"""Compare the simulator with vLLM's real engine on an emulated GPU, on the same requests.

vLLM's engine core, scheduler and KV cache run in this process in virtual time, with Niyama's scheduler class.
The synchronous class is compared with the plain simulator, the asynchronous one with the overlapped simulator. Both run
prompts in KV before new ones: vLLM does so whatever the plan's order, and the authors' linear model cares which chunk
is first. Latency model and predictor are the same on both sides, without noise: what differs is the schedulers' doing.
Known to differ: a request that lost its KV, with a last chunk of one token, is a decode to the device and a prompt to
the kernel (0.5 ms by the linear model); and requests of exactly the same rank, which the plug-in serves in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifact.config import ConfigError, each_once, parse
from artifact.experiments.capacity import CRITERIA
from artifact.results import metrics
from artifact.results.tables import read_table
from artifact.runs.run import Result, run
from artifact.runs.spec import PAPER_MIX, ClassSpec, RunSpec
from artifact.servers.model_files import model_folder
from niyama import BUILT_IN, load_card
from niyama.sim import Requests, Run

BACKEND = "vllm-virtual"
TOLERANCE_POINTS = 2.0  # of the violation rate of any class, in percentage points
TOLERANCE = 0.05  # of p50 and p95, relative
SAME_S = 1e-9  # token times that differ by less are the same
QUANTILES = {"p50": 0.5, "p95": 0.95}
CAPACITIES = Path(__file__).parents[1] / "reference" / "tables" / "capacity.parquet"
SCHEDULERS = {"sync": "niyama.vllm.NiyamaScheduler", "async": "niyama.vllm.NiyamaAsyncScheduler"}

#: Deadlines that a run of a thousand requests can miss, so that relegation has work; the paper's take half an hour.
TIGHT_MIX = (
    ClassSpec(name="Q1", share=1 / 3, ttft_s=2.0, tbt_s=0.05),
    ClassSpec(name="Q2", share=1 / 3, ttlt_s=20.0),
    ClassSpec(name="Q3", share=1 / 3, ttlt_s=60.0),
)
SLOS = {"paper": PAPER_MIX, "tight": TIGHT_MIX}


@dataclass(frozen=True)
class Point:
    """One comparison. slos: name of the class set; load: as a share of capacity; `spec` says the rest."""

    spec: RunSpec
    slos: str
    load: float

    @property
    def scheduler(self) -> str:
        """Which of vLLM's schedulers: `sync` or `async`."""
        return "async" if self.spec.overlapped else "sync"


def points(
    traces: Sequence[str],
    latencies: Sequence[str],
    slos: Sequence[str],
    loads: Sequence[float],
    schedulers: Sequence[str],
    capacity_qps: float | None,
    **spec: Any,
) -> Iterator[Point]:
    """Every combination. capacity_qps: what loads are shares of; None: the reference capacity. Raises ConfigError."""
    for name, known, given in (("slos", SLOS, slos), ("scheduler", SCHEDULERS, schedulers)):
        for unknown in set(given) - set(known):
            raise ConfigError(f"{name} is {unknown!r}; use one of {', '.join(known)}")
    for name, given in (("trace", traces), ("latency", latencies), ("slos", slos), ("loads", loads)):
        try:
            each_once(given)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    if spec["system"] not in BUILT_IN:
        raise ConfigError(f"system is {spec['system']!r}; vLLM takes one of the policies {', '.join(BUILT_IN)}")
    for trace in traces:
        for latency in latencies:
            full_qps = capacity_qps or reference_capacity_qps(trace, spec["system"], latency)
            for name in slos:
                for load in loads:
                    for scheduler in schedulers:
                        fields = {"trace": trace, "latency": latency, "load_qps": round(load * full_qps, 3), **spec}
                        fields |= {"classes": SLOS[name], "overlapped": scheduler == "async"}
                        yield Point(parse(RunSpec, fields, "command line"), name, load)


def reference_capacity_qps(trace: str, system: str, latency: str) -> float:
    """The committed capacity by TTFT and TTLT; ConfigError where there is none."""
    wanted = {"trace": trace, "system": system, "latency": latency, "run_length": "paper", "criterion": CRITERIA[1]}
    for row in read_table(CAPACITIES).to_pylist():
        if row["capacity_qps"] is not None and all(row[name] == value for name, value in wanted.items()):
            return row["capacity_qps"]
    raise ConfigError(f"there is no reference capacity of {system} on {trace} with {latency}; give --capacity QPS")


def compare(point: Point, models: Path, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Run one point on both sides; a row of the fidelity table. models: folder for the model's config.

    Raises ConfigError where vLLM is not installed.
    """
    sim = run(point.spec, started_first=True)
    vllm = _run_vllm(point, sim, models, progress)
    return {
        "backend": BACKEND,
        "trace": sim.trace_name,
        "system": point.spec.system,
        "latency": point.spec.latency,
        "slos": point.slos,
        "scheduler": point.scheduler,
        "load": point.load,
        "load_qps": point.spec.load_qps,
        "requests": point.spec.requests,
        "seed": point.spec.seed,
        "classes": [c.name for c in point.spec.classes],
        **differences(sim.requests, sim.run, vllm),
    }


def _run_vllm(point: Point, sim: Result, models: Path, progress: Callable[[int], None] | None) -> Run:
    try:
        from niyama.vllm.emulated.virtual import EngineSettings, Traffic, run_virtual
    except ModuleNotFoundError as error:
        raise ConfigError(f"fidelity needs vLLM ({error}); run `make setup ENGINE=cpu`") from None
    policy = BUILT_IN[point.spec.system]
    engine = EngineSettings(
        model_folder("llama3-8b", models),
        SCHEDULERS[point.scheduler],
        {"policy": policy.name, "latency": point.spec.latency},
        max_num_batched_tokens=policy.max_chunk_tokens + policy.max_running,
        max_num_seqs=policy.max_running,
    )
    return run_virtual(Traffic(sim.requests), load_card(point.spec.latency), engine, progress=progress)


def differences(requests: Requests, sim: Run, vllm: Run) -> dict[str, Any]:
    """Both sides' metrics, a value per class where there is a list, and the worst differences with the verdict.

    ttft_difference: over p50 and p95 of the interactive classes, ttlt_difference: of all classes, relative to vLLM.
    token_time_difference: over all tokens, relative to the time since the request's arrival.
    """
    a, b = _seen(requests, sim), _seen(requests, vllm)
    interactive = [c.interactive for c in requests.classes]
    ttft = [_apart(a[f"ttft_{q}_s"], b[f"ttft_{q}_s"])[interactive] for q in QUANTILES]
    ttlt = [_apart(a[f"ttlt_{q}_s"], b[f"ttlt_{q}_s"]) for q in QUANTILES]
    violations = 100 * np.abs(np.subtract(a["violation_rate"], b["violation_rate"]))
    age_s = vllm.token_s - np.repeat(requests.arrival_s, requests.output_tokens)
    late_s = np.abs(sim.token_s - vllm.token_s)
    row: dict[str, Any] = {_column(name, side): seen[name] for name in a for side, seen in (("sim", a), ("vllm", b))}
    row |= {
        "violation_difference_points": _worst(violations),
        "ttft_difference": _worst(ttft),
        "ttlt_difference": _worst(ttlt),
        "token_time_difference": float((late_s / age_s).max()),
        "identical": bool(late_s.max() <= SAME_S and sim.iterations == vllm.iterations),
    }
    within = row["violation_difference_points"] <= TOLERANCE_POINTS
    return row | {"passes": within and max(row["ttft_difference"], row["ttlt_difference"]) <= TOLERANCE}


def _seen(requests: Requests, run: Run) -> dict[str, Any]:
    """What one side's clients saw; lists hold a value per class, nan for a class without requests."""
    columns = metrics.request_columns(requests, run)
    seen: dict[str, Any] = {
        "violation_rate": metrics.violation_rates(requests, columns)[0].tolist(),
        "iterations": run.iterations,
        "relegated": int((run.relegations > 0).sum()),
        "preemptions": int(run.preemptions.sum()),
    }
    masks = [requests.class_index == i for i in range(len(requests.classes))]
    for name in ("ttft", "ttlt"):
        values = columns[f"{name}_s"]
        for quantile, q in QUANTILES.items():
            seen[f"{name}_{quantile}_s"] = [float(np.quantile(values[m], q)) if m.any() else np.nan for m in masks]
    return seen


def _column(name: str, side: str) -> str:
    """The unit stays at the end."""
    return f"{name[:-2]}_{side}_s" if name.endswith("_s") else f"{name}_{side}"


def _apart(sim: list[float], vllm: list[float]) -> np.ndarray:
    return np.abs(np.subtract(sim, vllm)) / np.array(vllm)


def _worst(values: Any) -> float:
    """The largest, of classes that have requests; 0 where there is none to compare."""
    return float(np.nanmax(values, initial=0.0))
