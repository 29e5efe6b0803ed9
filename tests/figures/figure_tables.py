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


CONV_TWIN = "azure-conv-2024-week-synth"


def run_of(trace, system, load_qps, seed=0) -> dict[str, object]:
    """The columns that say which run a row is about."""
    who = {"backend": "sim", "trace": trace, "system": system, "latency": LINEAR, "predictor": f"{LINEAR} (oracle)"}
    return {**who, "load_qps": load_qps, "requests": 5000, "seed": seed, "replicas": 1}


def chunk_curve_rows() -> list[dict]:
    """10 ms and 0.1 ms a token: 400 tokens (390 beside 10 decodes) take 50 ms; at most 2,000 tokens."""
    rows = []
    for decodes in (0, 10):
        for chunk in range(10, 2001, 10):
            seconds = 0.010 + 0.0001 * (chunk + decodes)
            one = {"backend": "latency-model", "latency": LINEAR, "decodes": decodes, "chunk_tokens": chunk}
            rates = {"tokens_per_s": (chunk + decodes) / seconds, "prefill_tokens_per_s": chunk / seconds}
            rows.append({**one, "decode_context_tokens": 1000 * decodes, "duration_s": seconds, **rates})
    return rows


def five_requests_rows() -> list[dict]:
    """Two requests: X is in time, Y of low importance is relegated at 0.4 s and a second late."""
    rows = []
    for system in ("sarathi-fcfs", "niyama"):
        who = {k: v for k, v in run_of("five-requests", system, 1.0).items() if k not in ("load_qps", "replicas")}
        facts = (("X", True, 0.0, 1.0, 500, 0.3, True), ("Y", False, 0.1, 0.9, 700, 1.9, False))
        for name, important, start_s, end_s, tokens, counted_s, met in facts:
            about = {**who, "request": name, "important": important}
            fact = {"start_s": start_s, "end_s": end_s, "tokens": tokens, "counted_s": counted_s, "met": met}
            rows.append({**about, "kind": "request", **fact})
            chunk = {"start_s": start_s, "end_s": counted_s, "tokens": tokens, "counted_s": None, "met": None}
            rows.append({**about, "kind": "prefill", **chunk})
            rows.append({**about, "kind": "decode", **chunk, "start_s": counted_s, "end_s": counted_s + 0.1})
            if not important:
                rows.append({**about, "kind": "relegated", **chunk, "start_s": 0.4, "end_s": None})
    return rows


def chunk_windows_rows() -> list[dict]:
    """Ten iterations of each figure's systems; no decode has a deadline in the first."""
    windows = {
        "fig9": (CONV_TWIN, ("sarathi-edf", "niyama")),
        "fig15a": ("fixed-10000x500-synth", ("sarathi-fcfs", "medha", "niyama-dc-fcfs")),
    }
    return [
        {
            "figure": figure,
            **run_of(trace, system, 3.9),
            "iteration": i,
            "prefill_tokens": 100 * (k + 1) + i,
            "decodes": 5,
            "min_slack_s": 0.5 / i if i else None,
            "duration_s": 0.02 + 0.001 * i,
        }
        for figure, (trace, systems) in windows.items()
        for k, system in enumerate(systems)
        for i in range(10)
    ]


def chunk_throughput_rows() -> list[dict]:
    """Over the fixed chunk: niyama-dc 10 % at the same load and 50 % far above, niyama twice that; seeds differ."""
    rates = {"sarathi-edf": (1.0, 1.0), "niyama-dc": (1.1, 1.5), "niyama": (1.2, 2.0)}
    return [
        {
            **run_of(CONV_TWIN, system, load, seed),
            "busy_tokens_per_s": 6000 * (1 + seed) * busy,
            "run_tokens_per_s": 5000 * (1 + seed) * far,
            "mean_chunk_tokens": 300.0,
        }
        for system, (busy, far) in rates.items()
        for load in (3.9, 20.0)
        for seed in range(3)
    ]


def search_rows(trace, systems, label="", factor=1.0) -> list[dict]:
    """Rows of a search: capacity rows with the label `variant`."""
    rows = []
    for system, base in systems.items():
        for criterion, cost in zip(CRITERIA, (0.0, 0.02), strict=True):
            values = [factor * base - cost + 0.01 * k for k in range(3)]
            row = capacity_row(trace, system, LINEAR, "paper", criterion, values)
            rows.append({"variant": label, **{k: v for k, v in row.items() if k != "run_length"}})
    return rows


def polyserve_rows() -> dict[str, list[dict]]:
    """Alone, a replica carries 4 and 5 (silo), 5 and 6.25 (PolyServe) requests/s, shared 6.3, by token deadlines."""
    alone = {"sarathi-fcfs": 4.01, "sarathi-fcfs-512": 3.0, "polyserve": 5.01}
    classes = search_rows(CONV_TWIN, alone, "TBT 50 ms") + search_rows(CONV_TWIN, alone, "TBT 100 ms", 1.25)
    mixes = [row for label in ("10", "90") for row in search_rows(CONV_TWIN, {"niyama": 6.31}, label)]
    fleets = [
        {**run_of(CONV_TWIN, system, 50.0), "seeds": 3, "share": share, "fleet": fleet, "gpus": gpus}
        for share in (0.1, 0.9)
        for system, fleet, gpus in (("polyserve", "4-6", 10), ("niyama", "9", 9))
    ]
    return {"polyserve_classes": classes, "polyserve_mixes": mixes, "polyserve_fleets": fleets}


def named_rows() -> dict[str, list[dict]]:
    """Made-up rows of the tables of named experiments and panels, by table."""
    return {
        "chunk_curve": chunk_curve_rows(),
        "five_requests": five_requests_rows(),
        "chunk_windows": chunk_windows_rows(),
        "chunk_throughput": chunk_throughput_rows(),
        "medha": search_rows("fixed-10000x500-synth", {"sarathi-fcfs": 0.3, "medha": 0.26, "niyama-dc-fcfs": 0.39}),
        **polyserve_rows(),
    }
