"""The operators' scenario: interactive bursts beside three batch jobs with windows, on one and two replicas.

After llm-d/llm-d-batch-gateway issue 491: interactive requests of 512 tokens with 128 of output in a square wave of 15
and 1 requests/s, 90 s each, ten times; at the start three batch jobs of 1,000 requests, 512 tokens with an output of
500 on average (log-normal, sd 400, at most 2,048), due in 30 minutes, 2 hours and 24 hours. They ran gpt-oss-120b on
A100s; the SLOs of the interactive class, TTFT and TBT, are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.gateway import Aimd, Gateway, Open, serve
from artifact.experiments.panel_config import Operators
from artifact.results import metrics
from artifact.runs.spec import PREDICTOR_IS_EXECUTOR, ClassSpec
from artifact.runs.stock import VLLM_FCFS, VLLM_PRIORITY, stock_policy
from artifact.runs.systems import build_system
from niyama import Policy, load_card
from niyama.sim import Requests, Run
from traces.arrivals import SquareArrivals, arrival_times

BACKEND, TRACE = "sim", "operators"
ALONE, AIMD = "interactive alone", "vllm-fcfs behind AIMD"
INTERACTIVE = "interactive"
PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
JOB_OUTPUT_MEAN, JOB_OUTPUT_SD, JOB_OUTPUT_MOST = 500.0, 400.0, 2048


def classes_of(scenario: Operators) -> tuple[ClassSpec, ...]:
    """The interactive class, and one for each job."""
    jobs = [ClassSpec(name=f"due-in-{window:g}-s", ttlt_s=window) for window in scenario.windows_s]
    return (ClassSpec(name=INTERACTIVE, ttft_s=scenario.ttft_s, tbt_s=scenario.tbt_s), *jobs)


def arriving(scenario: Operators, seed: int, alone: bool) -> Requests:
    """What arrives under a seed, the jobs first; alone: without them."""
    for_times, for_outputs = (np.random.default_rng([seed, axis]) for axis in range(2))
    times = _burst_times(scenario, for_times)
    count = 0 if alone else len(scenario.windows_s) * scenario.job_requests
    variance = np.log1p((JOB_OUTPUT_SD / JOB_OUTPUT_MEAN) ** 2)
    outputs = for_outputs.lognormal(np.log(JOB_OUTPUT_MEAN) - variance / 2, np.sqrt(variance), count)
    outputs = np.clip(outputs.round(), 1, JOB_OUTPUT_MOST)
    job = np.arange(count) // scenario.job_requests
    return Requests(
        tuple(c.qos() for c in classes_of(scenario)),
        np.concatenate([1 + job, np.zeros(len(times), int)]).astype(np.int16),
        np.concatenate([np.zeros(count), times]),
        np.full(count + len(times), PROMPT_TOKENS, np.int32),
        np.concatenate([outputs, np.full(len(times), OUTPUT_TOKENS)]).astype(np.int32),
        np.ones(count + len(times), bool),
    )


def _burst_times(scenario: Operators, rng: np.random.Generator) -> np.ndarray:
    """Poisson arrivals of the wave, from its high phase on, in seconds."""
    wave = SquareArrivals(low_qps=scenario.low_qps, high_qps=scenario.high_qps, dwell_s=scenario.dwell_s)
    end_s = length_s(scenario)
    most = int(2 * (end_s + scenario.dwell_s) * scenario.high_qps) + 100
    times = arrival_times(wave, most, wave.mean_qps, rng, None) - scenario.dwell_s  # the wave begins low
    return times[(times >= 0) & (times < end_s)]


def length_s(scenario: Operators) -> float:
    """How long interactive requests arrive."""
    return 2 * scenario.dwell_s * scenario.cycles


def policy_of(system: str, classes: tuple[ClassSpec, ...], latency: str) -> Policy:
    """The policy of each replica. ConfigError for a system that there is not, or that is no single pool."""
    stock = {ALONE: VLLM_FCFS, AIMD: VLLM_FCFS}.get(system, system)
    if stock in (VLLM_FCFS, VLLM_PRIORITY):
        return stock_policy(stock, load_card(latency).hardware)
    pools = build_system(system, classes).pools
    if len(pools) != 1:
        raise ConfigError(f"system {system!r} has {len(pools)} pools; the operators' scenario has shared replicas")
    return pools[0].policy


def operators(scenario: Operators, latency: str) -> list[dict[str, Any]]:
    """One row per system, number of replicas and seed."""
    return [
        _row(scenario, latency, system, replicas, seed)
        for system in scenario.systems
        for replicas in scenario.replicas
        for seed in range(scenario.seeds)
    ]


def _row(scenario: Operators, latency: str, system: str, replicas: int, seed: int) -> dict[str, Any]:
    requests, card = arriving(scenario, seed, system == ALONE), load_card(latency)
    policy = policy_of(system, classes_of(scenario), latency)
    gate: Gateway = Aimd(requests, scenario.ttft_s, scenario.tbt_s) if system == AIMD else Open()
    run = serve(requests, policy, latency, replicas, gate)
    who = {
        "backend": BACKEND,
        "trace": TRACE,
        "system": system,
        "latency": card.name,
        "predictor": f"{card.name} ({PREDICTOR_IS_EXECUTOR})",
        "replicas": replicas,
        "seed": seed,
        "requests": len(requests),
    }
    return {**who, **measured(scenario, requests, run, replicas * card.gpus)}


def measured(scenario: Operators, requests: Requests, run: Run, gpus: int) -> dict[str, Any]:
    """What the interactive requests and the jobs got, and for how many GPU-hours."""
    columns, own = metrics.request_columns(requests, run), requests.class_index == 0
    tokens_s = np.split(run.token_s, run.token_start[1:-1])
    gaps_s = np.concatenate([np.diff(tokens_s[i]) for i in np.flatnonzero(own)])
    last_s = run.token_s[run.token_start[1:] - 1]
    ends = [last_s[requests.class_index == 1 + job] for job in range(len(scenario.windows_s))]
    jobs = [(times, window) for times, window in zip(ends, scenario.windows_s, strict=True) if times.size]
    return {
        **{f"ttft_{name}_s": float(np.quantile(columns["ttft_s"][own], q)) for name, q in metrics.QUANTILES.items()},
        **{f"gap_{name}_s": float(np.quantile(gaps_s, q)) for name, q in metrics.QUANTILES.items()},
        "violation_rate": float(columns["violated"][own].mean()),
        "windows_met": sum(bool(times.max() <= window) for times, window in jobs) if jobs else None,
        "jobs_done_s": float(max(times.max() for times, _ in jobs)) if jobs else None,
        "gpu_hours": gpus * max(float(last_s.max()), length_s(scenario)) / 3600,
    }
