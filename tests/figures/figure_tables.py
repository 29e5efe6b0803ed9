"""Small made-up tables with the columns of the real ones."""

from __future__ import annotations

LINEAR, ROOFLINE = "a100-llama3-8b-linear", "a100-llama3-8b-roofline"
CODE, CODE_TWIN = "azure-code-2023", "azure-code-2024-week-synth"
SYSTEMS = {"sarathi-fcfs": 1.5, "sarathi-edf": 2.5, "qoserve-artifact": 3.9, "niyama": 4.0}
CRITERIA = ("violation_rate_without_tbt", "violation_rate")
GROUPS = ("all", "short", "long", "Q1", "Q2", "Q3")


def capacity_row(trace, system, latency, run_length, criterion, values) -> dict[str, object]:
    """A row of capacity.parquet from the seeds' values; null when one of them is."""
    complete = None not in values
    mean = sum(values) / len(values) if complete else None
    half = 0.1 if complete and len(values) > 1 else None
    return {
        "backend": "sim",
        "run_length": run_length,
        "trace": trace,
        "system": system,
        "latency": latency,
        "predictor": f"{latency} (oracle)",
        "requests": 9000 if run_length == "paper" else 40000,
        "seeds": len(values),
        "criterion": criterion,
        "capacity_qps": mean,
        "capacity_qps_per_replica": mean,
        "interval_low_qps": mean - half if half else None,
        "interval_high_qps": mean + half if half else None,
        "passes_qps": 1.4 if complete else 8.0,
        "fails_qps": 1.6 if complete else None,
        "fluid_bound_qps": 4.5,
        "replicas": 1,
        "seed_capacity_qps": list(values),
    }


def capacity_rows(traces=(CODE, CODE_TWIN), latencies=(LINEAR, ROOFLINE), seeds=3, systems=None) -> list[dict]:
    """Every system's goodput; token deadlines cost 0.5, long runs 0.2, seed k adds 0.01 k."""
    rows = []
    for latency in latencies:
        for trace in traces:
            for system, base in (systems or SYSTEMS).items():
                for length, loss in (("paper", 0.0), ("long", 0.2)):
                    for criterion, cost in zip(CRITERIA, (0.0, 0.5), strict=True):
                        values = [base - loss - cost + 0.01 * k for k in range(seeds)]
                        rows.append(capacity_row(trace, system, latency, length, criterion, values))
    return rows


def summary_rows(traces=(CODE,), latencies=(LINEAR,), seeds=3, loads=(2.0, 4.0, 6.0)) -> list[dict]:
    """Latencies and violations that rise with the load, differ by system, and spread over seeds."""
    rows = []
    for latency in latencies:
        for trace in traces:
            for i, system in enumerate(SYSTEMS):
                for load in loads:
                    for seed in range(seeds):
                        who = {"trace": trace, "system": system, "latency": latency, "load_qps": load, "seed": seed}
                        rows += [{**who, "group": g, **metrics(g, load * (1 + i) * (1 + 0.1 * seed))} for g in GROUPS]
    return rows


def metrics(group: str, size: float) -> dict[str, object]:
    """The columns of a run that do not say which run it is."""
    batch = group in ("Q2", "Q3")
    times = {f"{m}_{q}_s": size * k for m in ("ttft", "ttlt") for k, q in enumerate(("p50", "p95", "p99"), 1)}
    gaps = {f"max_gap_{q}_s": 0.01 * size * k for k, q in enumerate(("p50", "p95", "p99"), 1)}
    return {
        "backend": "sim",
        "predictor": f"{LINEAR} (oracle)",
        "requests": 5000,
        "replicas": 1,
        "violation_rate": min(1.0, 0.02 * size),
        "violation_rate_without_tbt": min(1.0, 0.01 * size),
        "late_token_share": None if batch else min(1.0, 0.01 * size),
        "gap_over_tbt_share": None if batch else min(1.0, 0.02 * size),
        **times,
        **gaps,
    }


def cluster_rows(trace=CODE_TWIN, load_qps=35.0, seeds=2) -> list[dict]:
    """Planned: silo 12, EDF 14, Niyama 9. Given: the paper's 7-3-3, and Niyama with 10."""
    fleets = (
        ("sarathi-silo", "6-4-2", 12, "planned"),
        ("niyama", "9", 9, "planned"),
        ("sarathi-edf", "14", 14, "planned"),
        ("sarathi-silo", "7-3-3", 13, "given"),
        ("niyama", "10", 10, "given"),
    )
    rows = []
    for system, fleet, replicas, sizing in fleets:
        for seed in range(seeds):
            who = {"trace": trace, "system": system, "latency": LINEAR, "load_qps": load_qps, "seed": seed}
            for group in GROUPS:
                about = {"fleet": fleet, "sizing": sizing, **who, "group": group}
                rows.append({**metrics(group, 1 + seed), **about, "replicas": replicas})
    return rows


def disaggregated_rows(traces=("azure-conv-2023",), latencies=(LINEAR,), seeds=3, values=None) -> list[dict]:
    """Goodput 6, 7 and 8 end to end, 0.2 more by prefill only, 0.5 less with token deadlines."""
    systems = values or {"disagg-fcfs": 6.0, "disagg-edf": 7.0, "disagg-niyama": 8.0}
    side = {"decode_nodes": 2.0, "decode_wait_p99_s": 0.03, "decodes_mean": 50.0, "decodes_peak": 90.0}
    side |= {"decode_kv_peak_tokens": 80_000.0, "kv_transfer_p99_s": 0.02}
    return [
        {**capacity_row(trace, system, latency, "paper", criterion, [base + extra] * seeds), **side}
        for latency in latencies
        for trace in traces
        for system, base in systems.items()
        for criterion, extra in (("violation_rate_prefill_only", 0.2), (CRITERIA[0], 0.0), (CRITERIA[1], -0.5))
    ]


WAVE = {"load_qps": 3.5, "low_qps": 2.0, "high_qps": 5.0, "dwell_s": 900.0, "low_importance_share": 0.2}
WAVE_SYSTEMS = ("sarathi-fcfs", "sarathi-edf", "niyama")


def overload_rows(seeds=3, **changes) -> list[dict]:
    """Violations 80 %, 40 % and 0.1 ... by system; only Niyama relegates, up to 1,000 s."""
    rows = []
    for i, system in enumerate(WAVE_SYSTEMS):
        relegates = system == "niyama"
        more = ("relegated", *(f"relegated {name}" for name in ("Q1", "Q2", "Q3"))) if relegates else ()
        for seed in range(seeds):
            who = {"trace": CODE, "system": system, "latency": LINEAR, "seed": seed, **WAVE, **changes}
            for group in (*GROUPS, "important", "low", *more):
                own = {"violation_rate_without_tbt": 0.8 / 2**i, "violation_rate": 0.9 / 2**i}
                own |= {"relegated_share": 0.1 * relegates, "ttft_max_s": 500.0 * (1 + i), "ttlt_max_s": 1000.0}
                rows.append({**metrics(group, 1 + i), **who, **own, "group": group})
    return rows


def overload_window_rows(seeds=3, windows=120) -> list[dict]:
    """Four hours and a half-hour of it per window: latency grows by system, seed and time; nobody in the last one."""
    return [
        {
            **{"backend": "sim", "predictor": f"{LINEAR} (oracle)", "requests": 5000, "replicas": 1},
            **{"trace": CODE, "system": system, "latency": LINEAR, "seed": seed, "group": group, **WAVE},
            **{"start_s": 120.0 * k, "window_s": 60.0, "group_requests": 40 if k < windows - 1 else 0},
            "latency_p99_s": (1 + i) * (1 + seed) * (1 + k) if k < windows - 1 else None,
        }
        for i, system in enumerate(WAVE_SYSTEMS)
        for seed in range(seeds)
        for group in ("Q1", "Q2", "Q3")
        for k in range(windows)
    ]


def named_rows() -> dict[str, list[dict]]:
    """Made-up rows of the tables that only the target `paper` makes, by table."""
    return {
        "disaggregated": disaggregated_rows(),
        "overload": overload_rows(),
        "overload_windows": overload_window_rows(),
    }
