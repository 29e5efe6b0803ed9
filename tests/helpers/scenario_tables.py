"""Made-up rows of the tables of Fig 8, 12 and 13."""

from __future__ import annotations

from tests.helpers.figure_tables import CODE, CRITERIA, GROUPS, LINEAR, capacity_row, metrics


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


def scenario_rows() -> dict[str, list[dict]]:
    """The rows by table."""
    return {
        "disaggregated": disaggregated_rows(),
        "overload": overload_rows(),
        "overload_windows": overload_window_rows(),
    }
