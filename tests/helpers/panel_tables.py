"""Small made-up tables of the panels and of their searches."""

from __future__ import annotations

from tests.helpers.figure_tables import CRITERIA, LINEAR, capacity_row

FIXED = "fixed-10000x500-synth"
CONV_TWIN = "azure-conv-2024-week-synth"


def run_of(trace, system, load_qps, seed=0) -> dict[str, object]:
    """The columns that say which run a row is about."""
    who = {"backend": "sim", "trace": trace, "system": system, "latency": LINEAR, "predictor": f"{LINEAR} (oracle)"}
    return {**who, "load_qps": load_qps, "requests": 5000, "seed": seed, "replicas": 1}


def of_seeds(row: dict[str, object]) -> dict[str, object]:
    """The same for a row about several runs of any size."""
    return {"seeds": 3, **{name: value for name, value in row.items() if name not in ("seed", "replicas")}}


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
        "fig15a": (FIXED, ("sarathi-fcfs", "medha", "niyama-dc-fcfs")),
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


def capacities(trace, systems, label="", factor=1.0) -> list[dict]:
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
    classes = capacities(CONV_TWIN, alone, "TBT 50 ms") + capacities(CONV_TWIN, alone, "TBT 100 ms", 1.25)
    mixes = [row for label in ("10", "90") for row in capacities(CONV_TWIN, {"niyama": 6.31}, label)]
    fleets = [
        {**of_seeds(run_of(CONV_TWIN, system, 50.0)), "share": share, "fleet": fleet, "gpus": gpus}
        for share in (0.1, 0.9)
        for system, fleet, gpus in (("polyserve", "4-6", 10), ("niyama", "9", 9))
    ]
    return {"polyserve_classes": classes, "polyserve_mixes": mixes, "polyserve_fleets": fleets}


def operators_rows() -> list[dict]:
    """Two systems on one replica and on two; under niyama bursts wait 0.2 s, and the jobs take 360 s."""
    return [
        {
            "backend": "sim", "trace": "operators", "system": system, "latency": LINEAR,
            "predictor": f"{LINEAR} (oracle)", "replicas": replicas,
            "seed": seed, "requests": 17_400, "ttft_p50_s": 0.05, "ttft_p95_s": ttft_s + 0.01 * seed,
            "ttft_p99_s": 2 * ttft_s, "gap_p50_s": 0.02, "gap_p95_s": 0.05, "gap_p99_s": 0.06,
            "violation_rate": violated, "windows_met": met, "jobs_done_s": done_s and done_s / replicas,
            "gpu_hours": 0.5 * replicas,
        }
        for system, ttft_s, violated, met, done_s in (
            ("interactive alone", 0.1, 0.0, None, None), ("vllm-fcfs", 200.0, 0.2, 3, 330.0),
            ("niyama", 0.2, 0.001, 3, 360.0),
        )
        for replicas in (1, 2)
        for seed in range(3)
    ]  # fmt: skip


def panel_rows() -> dict[str, list[dict]]:
    """Made-up rows by table."""
    return {
        "chunk_curve": chunk_curve_rows(),
        "five_requests": five_requests_rows(),
        "chunk_windows": chunk_windows_rows(),
        "chunk_throughput": chunk_throughput_rows(),
        "medha": [
            *capacities(FIXED, {"sarathi-fcfs": 0.3, "medha": 0.26, "niyama-dc-fcfs": 0.39}, "margin 1.2"),
            *capacities(FIXED, {"sarathi-fcfs": 0.3, "medha": 0.31, "niyama-dc-fcfs": 0.41}, "no margin"),
        ],
        **polyserve_rows(),
        "operators": operators_rows(),
    }
