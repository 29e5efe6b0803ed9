"""Small made-up tables with the columns of the real ones."""

from __future__ import annotations

LINEAR, ROOFLINE = "a100-llama3-8b-linear", "a100-llama3-8b-roofline"
CODE, CODE_TWIN = "azure-code-2023", "azure-code-2024-week-synth"
SYSTEMS = {"sarathi-fcfs": 1.5, "sarathi-edf": 2.5, "qoserve-artifact": 3.9, "niyama": 4.0}
CRITERIA = ("violation_rate_without_tbt", "violation_rate")
GROUPS = ("all", "short", "long", "Q1", "Q2", "Q3")


#: What metadata says of the classes: Table 3's SLOs, though the rows' values are made up.
CLASSES = [
    {"name": "Q1", "ttft_s": 6.0, "tbt_s": 0.05, "ttlt_s": None},
    {"name": "Q2", "ttft_s": None, "tbt_s": None, "ttlt_s": 600.0},
    {"name": "Q3", "ttft_s": None, "tbt_s": None, "ttlt_s": 1800.0},
]


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


def summary_rows(
    traces=(CODE,), latencies=(LINEAR,), seeds=3, loads=(2.0, 4.0, 6.0), systems=tuple(SYSTEMS), groups=GROUPS
) -> list[dict]:
    """Latencies and violations that rise with the load, differ by system, and spread over seeds."""
    rows = []
    for latency in latencies:
        for trace in traces:
            for i, system in enumerate(systems):
                for load in loads:
                    for seed in range(seeds):
                        who = {"trace": trace, "system": system, "latency": latency, "load_qps": load, "seed": seed}
                        rows += [{**who, "group": g, **metrics(g, load * (1 + i) * (1 + 0.1 * seed))} for g in groups]
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
        "relegated_share": min(1.0, 0.005 * size),
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


def labelled(rows: list[dict], label: str = "", **changes: object) -> list[dict]:
    """The same rows as those of a variant."""
    return [{"variant": label, **row, **changes} for row in rows]


def search_rows(label: str, cost: float = 0.0, **changes: object) -> list[dict]:
    """Rows of a named search on both traces: each system's goodput, less `cost`."""
    rows = capacity_rows(systems={name: base - cost for name, base in SYSTEMS.items()})
    own = [{k: v for k, v in row.items() if k != "run_length"} for row in rows if row["run_length"] == "paper"]
    return labelled(own, label, **changes)


def other_model_rows(name: str) -> list[dict]:
    """Rows of a search of Fig 7b or 7c: two latency models of one configuration."""
    rows = [row for part in ("engine", "kernels") for row in capacity_rows(latencies=(f"{name}-{part}",))]
    return labelled(
        [{k: v for k, v in row.items() if k != "run_length"} for row in rows if row["run_length"] == "paper"]
    )


def accuracy_rows() -> list[dict]:
    """Rows of predictor_accuracy: errors spread evenly around a bias, twice as wide for chunks."""
    rows = []
    for profile in ("a100-llama3-8b-kernels", "mine"):
        for k, predictor in enumerate(("forest", "two-bin-linear", "monotone"), 1):
            for test, part, wide in (("steps", "all", 1), ("steps", "mixed", 1), ("chunks", "all", 2)):
                quantiles = [1 + 0.01 * k + 0.001 * wide * k * (q - 50) for q in range(101)]
                errors = {
                    "mean_abs": 0.03 * k,
                    "p90_abs": 0.05 * k,
                    "bias": 0.01 * k,
                    "within_claim": 0.9,
                    "above": 0.5,
                }
                who = {"profile": profile, "predictor": predictor, "test": test, "part": part, "count": 100 * wide}
                rows.append({**who, **errors, "margin": 1.0 + 0.01 * k, "ratio_quantiles": quantiles})
    return rows


def named_rows() -> dict[str, list[dict]]:
    """Made-up rows of the tables of named experiments (`grids` and `searches` of paper.yaml), by table."""
    niyama, five = {"systems": ("niyama",)}, ("all", "1 s", "3 s", "6 s", "600 s", "1,800 s")
    roofline = {"predictor": ROOFLINE}
    return {
        "more_systems": labelled(summary_rows(systems=("sarathi-sjf", "niyama-dc", "niyama-dc-er"))),
        "alpha": [r for label in ("0", "8", "adaptive") for r in labelled(summary_rows(**niyama), label)],
        "mixes": [r for label in ("70-15-15", "15-15-70") for r in labelled(summary_rows(loads=(4.5,)), label)],
        "more_classes": [
            *labelled(summary_rows(groups=("all", "Q1", "Q2")), "two"),
            *labelled(summary_rows(groups=five), "five"),
        ],
        "long_context": labelled(summary_rows(traces=("mooncake-conv",))),
        "other_slos": search_rows("3 s", 0.3),
        "short_runs": [*search_rows("short", -0.4, requests=1000), *search_rows("medium", -0.2, requests=3000)],
        "arrivals": [*search_rows("trace timestamps", 0.2), *search_rows("gamma, cv 2", 0.4)],
        "decode_length": [*search_rows("oracle", -0.1), *search_rows("constant 15", 0.1)],
        "fig7_qwen7b_a100_tp2": other_model_rows("a100-tp2-qwen-7b"),
        "fig7_llama70b_h100_tp4": other_model_rows("h100-tp4-llama3-70b"),
        "steady": [*search_rows("own model", 0.1), *search_rows("own model, noise 10 %", 0.2)],
        "steady_roofline": search_rows("other model", 0.1),
        "steady_loads": [row for name in ("own model", "noise") for row in labelled(summary_rows(), name)],
        "steady_elsewhere": [*search_rows("TTFT 1 s", 0.5), *search_rows("asynchronous", 0.3)],
        "steady_parts": [*search_rows("all parts", 0.1), *search_rows("no reserve", 0.6)],
        "steady_qwen": search_rows("own model", 0.4),
        "predictor_accuracy": accuracy_rows(),
        "predictor_error": [
            *search_rows("two A100s", 0.7, predictor="a100-tp2-qwen-7b-engine"),
            *search_rows("roofline, noise 10 %", 0.6, **roofline),
            *search_rows("linear", 0.0),
            *search_rows("linear, noise 10 %", 0.2),
        ],
    }
